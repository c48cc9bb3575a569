"""tools/export_pruned.py: from a run's checkpoint to the small one."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from pruned import mask

from mmvitcompress.channels import find_compactors
from mmvitcompress.checkpoints.file import read_checkpoint, write_checkpoint
from mmvitcompress.checkpoints.widths import read_widths
from mmvitcompress.models import CompressedViT, ImageClassifier

pytestmark = pytest.mark.slow

CONFIG = """
custom_imports = dict(imports=['mmvitcompress'])
default_scope = 'mmvitcompress'
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='CompressedViT', checkpoint='none/is/read.pth', {backbone}
    ),
    num_classes=3,
)
val_dataloader = dict(
    batch_size=4, num_workers=2, persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='TimmDataset', data_root={data!r}, split='val',
        transform=dict(input_size=32),
    ),
    collate_fn=dict(type='default_collate'),
)
val_cfg = dict(type='ValLoop')
val_evaluator = dict(type='TopKAccuracy', topk=(1,))
test_dataloader = val_dataloader
test_cfg = dict(type='TestLoop')
test_evaluator = val_evaluator
"""

ARCH = dict(embed_dim=24, depth=2, num_heads=3, patch_size=8, img_size=32)
CAIT = dict(arch=ARCH, token_merging=dict(layers=(2,)), compactors=True)
TURNED = dict(rope={}, pos_embed='none', mlp='swiglu')
SLIM = dict(
    arch=ARCH,
    patch_slimming=dict(base_layer=1, layers=(1,), keep_rate=0.5),
    soft_slimming=True,
)


def mask_pairs(model):
    """Mask two pairs of Q and K in each head, and the first of the rest."""
    for block in find_compactors(model.backbone):
        masked = ([0, 1, 4, 5],) * 2 + ([0, 1], [*range(40)])
        for compactor, channels in zip(block, masked):
            compactor.kept[:, channels] = False
            compactor.weight[:, channels] = 0


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for target in range(3):
        path = root / 'val' / str(target) / '0.png'
        path.parent.mkdir(parents=True)
        pixels = rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    return root


@pytest.fixture
def run(tmp_path, folder):
    """Config and checkpoint of a run; its model is changed by a function."""

    def run(backbone, change=lambda model: None):
        torch.manual_seed(0)
        model = ImageClassifier(
            dict(type='CompressedViT', **backbone), num_classes=3
        ).eval()
        with torch.no_grad():
            for param in model.parameters():
                param.add_(0.1 * torch.randn_like(param))
            change(model)
        checkpoint = tmp_path / 'epoch_1.pth'
        meta = dict(arch=model.backbone.arch.to_dict(), epoch=1)
        torch.save(dict(state_dict=model.state_dict(), meta=meta), checkpoint)
        config = tmp_path / 'run.py'
        arguments = ', '.join(f'{k}={v!r}' for k, v in backbone.items())
        text = CONFIG.replace('{backbone}', arguments)
        config.write_text(text.replace('{data!r}', repr(str(folder))))
        return config, checkpoint, model

    return run


def test_exported_pairs_keep_their_frequencies(run, tool, tmp_path):
    backbone = dict(arch=ARCH | TURNED, compactors=True)
    config, checkpoint, model = run(backbone, mask_pairs)
    out, report = tmp_path / 'small.pth', tmp_path / 'report.json'
    options = ('--divisor', 1, '--json', report)
    code, error = tool('export_pruned', config, checkpoint, out, *options)
    assert code == 0, error
    figures = json.loads(report.read_text())
    assert figures['widths'] == [[4, 6, 56]] * 2
    assert figures['folding_error'] < 1e-12
    index = read_checkpoint(out).state_dict['blocks.0.attn.rope_index']
    assert index.tolist() == [[2, 3]] * 3
    widths = read_widths(checkpoint)
    assert widths.kept.tolist() == figures['widths']
    small = ImageClassifier(
        dict(type='CompressedViT', checkpoint=str(out)), num_classes=3
    ).eval()
    images = torch.randn(2, 3, 32, 40)
    with torch.no_grad():
        torch.testing.assert_close(
            small(images), model(images), rtol=1e-4, atol=1e-5
        )


def test_exported_classifier_is_the_trained_one(run, tool, tmp_path):
    config, checkpoint, model = run(CAIT, mask)
    out, report = tmp_path / 'small.pth', tmp_path / 'report.json'
    code, error = tool(
        'export_pruned',
        config,
        checkpoint,
        out,
        '--divisor',
        1,
        '--json',
        report,
    )
    assert code == 0, error
    file = read_checkpoint(out)
    stored, meta = file.state_dict, file.meta
    assert not [key for key in stored if 'compactors' in key]
    assert stored['head.weight'].shape == (3, 24)
    assert meta['arch']['qk_dims'] == [5, 5]
    assert meta['arch']['v_dims'] == [6, 6]
    assert meta['arch']['mlp_dims'] == [56, 56]
    small = ImageClassifier(
        dict(type='CompressedViT', checkpoint=str(out)), num_classes=3
    ).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            small(images), model(images), rtol=1e-4, atol=1e-5
        )
    figures = json.loads(report.read_text())
    assert figures['widths'] == [[5, 6, 56]] * 2
    assert figures['unconverged'] == [0, 0]
    assert figures['folding_error'] < 1e-12
    arch = small.backbone.arch
    assert figures['macs']['after'] == arch.macs(num_classes=3)
    parameters = sum(param.numel() for param in small.parameters())
    assert figures['params']['after'] == parameters
    # the tool that tests runs takes it, too
    for path in (checkpoint, out):
        metrics = tmp_path / 'metrics.json'
        code, error = tool(
            'test',
            config,
            path,
            '--json',
            metrics,
            '--work-dir',
            tmp_path / 'test',
            '--cfg-options',
            'model.backbone.checkpoint=None',
            'test_dataloader.num_workers=0',
        )
        assert code == 0, error
        logits = metrics.read_text()
    assert 'top1' in logits
    # but not with a random classifier
    headless = tmp_path / 'headless.pth'
    stored = {k: v for k, v in stored.items() if not k.startswith('head.')}
    write_checkpoint(headless, stored, arch)
    code, error = tool('test', config, headless, '--work-dir', tmp_path / 't')
    assert code == 1 and 'no classifier for 3 classes' in error


def test_unconverged_channels_stop_it(run, tool, tmp_path):
    config, checkpoint, _ = run(CAIT, lambda m: mask(m, residue=1e-3))
    out = tmp_path / 'small.pth'
    code, error = tool('export_pruned', config, checkpoint, out)
    assert code == 1 and not out.exists()
    # 3 · (3 + 3 + 2) + 40 of each block
    assert '128 masked channels' in error and '[64, 64]' in error
    assert '--force' in error
    report = tmp_path / 'report.json'
    code, error = tool(
        'export_pruned', config, checkpoint, out, '--force', '--json', report
    )
    assert code == 0, error
    figures = json.loads(report.read_text())
    assert figures['unconverged'] == [64, 64]
    assert 0 < figures['output_shift'] < 0.1
    # by default widths are multiples of 8, and these stay whole
    assert figures['widths'] == [[8, 8, 56]] * 2


def test_merging_alone_and_slimming_are_exported(run, tool, tmp_path):
    images = torch.randn(2, 3, 32, 32)
    merging = dict(arch=ARCH, token_merging=dict(layers=(1,)))
    for backbone in (merging, SLIM):
        config, checkpoint, model = run(backbone)
        out = tmp_path / 'small.safetensors'
        code, error = tool('export_pruned', config, checkpoint, out)
        assert code == 0, error
        small = CompressedViT(checkpoint=str(out), out_indices=[-1]).eval()
        same = dict(arch=model.backbone.arch, out_indices=[-1])
        trained = CompressedViT(**same).eval()
        trained.load_state_dict(
            {
                key: value
                for key, value in model.backbone.state_dict().items()
                if not key.startswith('norm.')
            }
        )
        with torch.no_grad():
            torch.testing.assert_close(small(images), trained(images))


SEGMENTOR = """
import sys
import torch
from mmengine.registry import init_default_scope
scope, checkpoint, images, out = sys.argv[1:]
import mmvitcompress
if scope == 'mmseg':
    from mmseg.registry import MODELS
else:
    from mmdet.registry import MODELS
init_default_scope(scope)
backbone = dict(
    type='mmvitcompress.CAITDeiT', checkpoint=checkpoint, out_indices=[0, 1]
)
if scope == 'mmseg':
    import mmseg.models
    model = MODELS.build(dict(
        type='EncoderDecoder', backbone=backbone,
        decode_head=dict(
            type='FCNHead', in_channels=24, in_index=1, channels=8,
            num_convs=1, num_classes=2, norm_cfg=dict(type='BN'),
        ),
    ))
else:
    import mmdet.models
    model = MODELS.build(dict(
        type='RetinaNet', backbone=backbone,
        neck=dict(
            type='FPN', in_channels=[24, 24], out_channels=8, num_outs=2
        ),
        bbox_head=dict(
            type='RetinaHead', num_classes=2, in_channels=8, feat_channels=8,
            anchor_generator=dict(
                type='AnchorGenerator', scales=[4], ratios=[1.0],
                strides=[8, 8],
            ),
        ),
    ))
model.eval()
with torch.no_grad():
    torch.save(model.backbone(torch.load(images)), out)
"""


@pytest.mark.parametrize('scope', ['mmseg', 'mmdet'])
def test_fresh_process_has_the_trained_features(
    run, tool, helpers, tmp_path, scope
):
    config, checkpoint, model = run(CAIT, mask)
    out = tmp_path / 'small.pth'
    code, error = tool(
        'export_pruned', config, checkpoint, out, '--divisor', 1
    )
    assert code == 0, error
    script, images, features = (
        tmp_path / name for name in ('load.py', 'images.pt', 'features.pt')
    )
    script.write_text(SEGMENTOR)
    torch.save(torch.randn(2, 3, 40, 24), images)
    done = helpers.execute(
        [helpers.python, script, scope, out, images, features]
    )
    assert done.returncode == 0, done.stderr
    unfolded = CompressedViT(**CAIT, out_indices=[0, 1]).eval()
    state_dict = {
        key: value
        for key, value in model.backbone.state_dict().items()
        if not key.startswith('norm.')
    }
    unfolded.load_state_dict(state_dict)
    with torch.no_grad():
        expected = unfolded(torch.load(images))
    for mine, theirs in zip(torch.load(features), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_what_is_not_a_run_of_the_config_is_refused(run, tool, tmp_path):
    config, checkpoint, model = run(CAIT, mask)
    plain = tmp_path / 'plain.pth'
    for names, message in (
        (['head.weight'], 'holds a backbone only'),
        (['head.fc.weight', 'backbone.cls_token'], 'another model'),
    ):
        tensors = {name: torch.ones(1, 1, 24) for name in names}
        write_checkpoint(plain, tensors, model.backbone.arch)
        outcome = tool('export_pruned', config, plain, tmp_path / 'out.pth')
        assert outcome[0] == 1 and message in outcome[1]
    code, error = tool('export_pruned', config, checkpoint, tmp_path / 'o.pt')
    assert code == 1 and '*.pth or *.safetensors' in error
    code, error = tool(
        'export_pruned', config, checkpoint, tmp_path / 'o.pth', '--images', 0
    )
    assert code == 1 and 'at least 1' in error
