"""A Swin whose channels were pruned: folded, exported, loaded."""

import pytest
import torch
from swins import MERGES, SHAPE, assert_close, run, small

from mmvitcompress.channels import attach_compactors, find_compactors, fold
from mmvitcompress.checkpoints.file import write_checkpoint
from mmvitcompress.engine.export import export
from mmvitcompress.models import CompressedSwin, ImageClassifier


@pytest.mark.parametrize('method', ['dense', 'atme'])
def test_folding(method, tmp_path):
    """Masked columns at zero, folded away, and loaded from a file."""
    model = small(method, arch=SHAPE).double()
    x = torch.randn(2, 3, 100, 132).double()
    plain = run(model, x)
    compactors = attach_compactors(model)
    for ours, theirs in zip(run(model, x), plain):
        assert_close(ours, theirs, 1e-12)
    generator = torch.Generator().manual_seed(1)
    for block in compactors:
        for kind, compactor in block._asdict().items():
            torch.nn.init.normal_(compactor.weight, generator=generator)
            width = compactor.kept.shape[1]
            gone = torch.arange(width) % 4 == (1 if kind in 'qk' else 2)
            compactor.kept &= ~gone
            compactor.weight.data[:, gone] = 0
    expected = run(model, x)
    arch, state_dict = fold(model)
    assert arch.qk_dims == (6,) * 10
    assert arch.mlp_dims[-1] == 192
    path = tmp_path / 'folded.pth'
    write_checkpoint(path, state_dict, arch)
    folded = CompressedSwin(checkpoint=str(path)).double().eval()
    assert folded.arch == arch
    assert folded.layers[0].blocks[0].attn.scale == 8**-0.5
    # the file held float64, the model float32: fill it once more
    folded.load_state_dict(state_dict)
    for ours, theirs in zip(run(folded, x), expected):
        assert_close(ours, theirs, 1e-10)


def test_export_of_a_pruned_classifier(tmp_path):
    def build(arch=SHAPE, **kwargs):
        backbone = dict(type='CompressedSwin', arch=arch, **kwargs)
        return ImageClassifier(backbone, num_classes=5).eval()

    model = build(token_merging=MERGES['atme'], compactors=True)
    for block in find_compactors(model):
        for compactor in block:
            compactor.kept[:, ::3] = False
            compactor.weight.data[:, ::3] = 0
    x = torch.randn(2, 3, 64, 64)
    result = export(model, build, [x], divisor=1)
    assert result.report['macs']['after'] == result.arch.macs(num_classes=5)
    path = tmp_path / 'small.pth'
    write_checkpoint(path, result.state_dict, result.arch)
    again = build(None, checkpoint=str(path))
    assert again.has_weights
    assert_close(run(again, x), run(model, x), 1e-5)
