"""Graphs for other runtimes, run there and compared with PyTorch."""

import copy
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from disks import full_disk
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope
from PIL import Image
from torch import nn

from mmvitcompress.deploy import (
    DeployedNetwork,
    GraphSpec,
    OnnxNetwork,
    dynamic_size,
    evaluation,
    export_onnx,
    export_program,
    graph_error,
)
from mmvitcompress.deploy.targets import TARGETS, base
from mmvitcompress.deploy.targets.base import TOLERANCE
from mmvitcompress.errors import ConfigError, DataError, WriteError
from mmvitcompress.models import CompressedSwin, CompressedViT
from mmvitcompress.utils import cli

pytestmark = pytest.mark.slow

TOOL = Path(__file__).parents[2] / 'tools' / 'export_onnx.py'
SMALL = dict(
    embed_dim=12,
    depth=2,
    num_heads=2,
    patch_size=4,
    img_size=32,
    mlp_dims=(16, 24),
)
MERGED = dict(token_merging=dict(layers=(1, 2)))
VIT = {
    'dense': {},
    'other merges': dict(
        token_merging=dict(
            layers=(1, 2), directions=('symmetric', 'diagonal'), conv=True
        )
    ),
    'cait and life slimming': dict(
        token_merging=dict(layers=(1,)),
        patch_slimming=dict(base_layer=1, layers=(1,), keep_rate=0.7),
    ),
}
PRUNED = SMALL | dict(qk_dims=(4, 2), v_dims=(2, 6), mlp_dims=(8, 20))
ODD = (28, 44)  # 7x11 patches; the embedding has 8x8


def shaken(model):
    """Trained, as far as a graph can tell: no zeros, no equal merges."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def vit(method='dense', **kwargs):
    arch = PRUNED if 'cait' in method else SMALL
    return shaken(CompressedViT(arch, **VIT[method], **kwargs))


def written(model, path, part='encoder', **spec):
    network = DeployedNetwork(model, part, GraphSpec(**spec))
    export_onnx(network, path)
    return network, OnnxNetwork(path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'graph.onnx'


@pytest.mark.parametrize('method', VIT)
def test_vit_on_odd_grid(method, path):
    model = vit(method)
    network, graph = written(model, path, shape=ODD)
    assert graph.input_shape == ['batch', 3, *ODD]
    images = torch.randn(5, 3, *ODD)
    with torch.no_grad():
        expected = model(images)
    for ours, theirs in zip(graph(images), expected, strict=True):
        assert ours.shape == theirs.shape
        bound = TOLERANCE * theirs.abs().max().item()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=bound)
    assert graph_error(network, graph) <= TOLERANCE
    content = onnx.load(path)
    operators = [node.op_type for node in content.graph.node]
    meta = {prop.key: prop.value for prop in content.metadata_props}
    meta = json.loads(meta['mmvitcompress'])
    assert meta['shape'] == list(ODD) and meta['dynamic'] == 'batch'
    assert meta['arch'] == model.arch.to_dict()
    if method == 'dense':  # the position embedding is a constant
        assert 'Resize' not in operators
    # sorted once; restoring inverts the order for each output
    sorts = operators.count('TopK')
    assert (sorts > 0) == ('slimming' in method)


def test_swin(path):
    arch = dict(
        embed_dim=8, depths=(1, 1, 2, 1), num_heads=(1, 1, 2, 2), img_size=64
    )
    model = CompressedSwin(
        arch, window_size=4, token_merging=dict(layers=(2,)), out_indices=[3]
    )
    network, graph = written(shaken(model), path, shape=(64, 92))
    assert graph_error(network, graph) <= TOLERANCE
    with pytest.raises(ConfigError, match='one graph for each size'):
        DeployedNetwork(model, 'encoder', GraphSpec((64, 64), 'size'))


@pytest.mark.parametrize('rotary', [False, True])
def test_dynamic_size(path, rotary):
    arch = SMALL | dict(depth=1, mlp_dims=(16,))
    if rotary:
        arch |= dict(rope={}, head_dim=8, pos_embed='none', mlp='swiglu')
    model = shaken(CompressedViT(arch, token_merging=dict(layers=(1,))))
    _, graph = written(model, path, shape=(16, 24), dynamic='size')
    assert graph.input_shape == ['batch', 3, '4*rows', '8*columns']
    # the embedding's own size, larger, smaller, more images than one
    for shape in ((32, 32), (40, 64), (8, 16)):
        images = torch.randn(3, 3, *shape)
        with torch.no_grad():
            expected = model(images)[0]
        torch.testing.assert_close(graph(images)[0], expected)
    for shape in ((16, 20), (18, 24)):  # would lose patches
        with pytest.raises(ConfigError, match='multiples of 4 and 8'):
            graph(torch.randn(1, 3, *shape))


def test_images_have_the_channels_of_the_model(path):
    model = shaken(CompressedViT({**SMALL, 'in_chans': 1}))
    network, graph = written(model, path, shape=(16, 24), dynamic='size')
    assert network.example().shape == (2, 1, 16, 24)
    assert graph.input_shape[1] == 1
    # other numbers and other sizes, too
    assert graph_error(network, graph) <= TOLERANCE


@pytest.mark.parametrize('size', [1, 2, 3, 6, (None, 4), (5, 2)])
def test_adaptive_pool_equals_torch(size):
    network = nn.Sequential(nn.AdaptiveAvgPool2d(size))
    x = torch.randn(2, 3, 7, 10, dtype=torch.float64)
    expected = network(x)
    dynamic_size.free_sizes(network)
    assert type(network[0]) is dynamic_size.AdaptivePool
    torch.testing.assert_close(network(x), expected)


def upernet(backbone):
    init_default_scope('mmseg')
    model = MODELS.build(
        dict(
            type='EncoderDecoder',
            backbone=backbone,
            neck=dict(
                type='mmvitcompress.UnmergePyramid',
                embed_dim=12,
                rescales=(2, 0.5),
                norm_cfg=dict(type='BN'),
            ),
            decode_head=dict(
                type='UPerHead',
                in_channels=[12, 12],
                in_index=[0, 1],
                channels=8,
                pool_scales=(1, 3),
                num_classes=4,
                norm_cfg=dict(type='BN'),
            ),
            test_cfg=ConfigDict(mode='whole'),
        )
    )
    return shaken(model)


BACKBONE = dict(type='mmvitcompress.CompressedViT', arch=SMALL, restore=False)


@pytest.mark.parametrize('part', ['encoder', 'all'])
@pytest.mark.parametrize('method', VIT)
def test_torch_export_round_trip(method, part, tmp_path):
    """Backbone and neck, and whole segmentors, for any number of images."""
    arch = PRUNED if 'cait' in method else SMALL
    model = upernet({**BACKBONE, 'arch': arch, **VIT[method]})
    network = DeployedNetwork(model, part, GraphSpec(ODD))
    torch.export.save(export_program(network), tmp_path / 'graph.pt2')
    loaded = torch.export.load(tmp_path / 'graph.pt2').module()
    for count in (1, 4):
        images = network.example(count)
        with torch.no_grad():
            expected = model.extract_feat(images)
            if part == 'all':
                expected = [model(images, mode='tensor')]
            found = loaded(images)
        assert len(found) == (1 if part == 'all' else 2)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_segmentor(path):
    model = upernet({**BACKBONE, **MERGED})
    images = torch.randn(3, 3, *ODD)
    _, graph = written(model, path, 'all', shape=ODD)
    with torch.no_grad():
        expected = model(images, mode='tensor')
    (logits,) = graph(images)
    assert logits.shape == (3, 4, 14, 22)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    # what is around the graph predicts the same classes
    stand_in = evaluation.with_graph(model, 'all', graph)
    with torch.no_grad():
        outputs = [each.predict(images) for each in (stand_in, model)]
    found, wanted = ([s.pred_sem_seg.data for s in o] for o in outputs)
    assert torch.equal(torch.cat(found), torch.cat(wanted))
    assert len(torch.cat(found).unique()) > 1
    with pytest.raises(ConfigError, match='28×44, but got 32×32'):
        graph(torch.randn(1, 3, 32, 32))


def test_what_cannot_become_a_graph(make_config, path):
    with pytest.raises(ConfigError, match="use part='encoder'"):
        DeployedNetwork(
            MODELS.build(detector(make_config)), 'all', GraphSpec((64, 64))
        )
    with pytest.raises(ConfigError, match='constants of the graph'):
        DeployedNetwork(
            vit('cait and life slimming'), 'encoder', GraphSpec(ODD, 'size')
        )
    with pytest.raises(ConfigError, match='multiples of 4 and 4'):
        DeployedNetwork(vit(), 'encoder', GraphSpec((30, 32), 'size'))
    unrestored = DeployedNetwork(
        vit('other merges', restore=False), 'encoder', GraphSpec(ODD)
    )
    with pytest.raises(ConfigError, match='restore=True'):
        export_program(unrestored)
    with pytest.raises(ConfigError, match='at least 18'):
        export_onnx(unrestored, path, opset=11)
    with pytest.raises(ConfigError, match='dynamic must be one of'):
        GraphSpec(ODD, 'everything')


def detector(make_config):
    init_default_scope('mmdet')
    return make_config('mask_rcnn').model


def test_model_is_left_as_it_was():
    model = vit().train()
    before = copy.deepcopy(model.state_dict())
    DeployedNetwork(model, 'encoder', GraphSpec(ODD))
    assert model.training and model.pos_embed.requires_grad
    assert '_position' not in vars(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_graph_error_sees_a_wrong_graph():
    network = DeployedNetwork(vit(), 'encoder', GraphSpec(ODD))
    other = copy.deepcopy(network)
    assert graph_error(network, other) == 0
    with torch.no_grad():
        other.backbone.blocks[0].mlp.fc1.weight *= 1.01
    assert graph_error(network, other) > TOLERANCE


def test_a_wrong_graph_leaves_the_file_that_was_there(path, monkeypatch):
    network = DeployedNetwork(vit(), 'encoder', GraphSpec(ODD))
    path.write_bytes(b'old')
    monkeypatch.setattr(base, 'graph_error', lambda *args: 0.5)
    with pytest.raises(ConfigError, match='differs from PyTorch'):
        export_onnx(network, path)
    assert path.read_bytes() == b'old'
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize('name', ['graph.pt2', 'graph.onnx'])
def test_a_full_disk_leaves_the_file_that_was_there(name, tmp_path):
    network = DeployedNetwork(vit(), 'encoder', GraphSpec(ODD))
    path = tmp_path / name
    path.write_bytes(b'old')
    write = TARGETS['torch' if 'pt2' in name else 'onnx'].write
    with full_disk(2000), pytest.raises(WriteError, match='cannot be written'):
        write(network, path)
    assert path.read_bytes() == b'old'
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_images_to_calibrate_on_are_others():
    checked, others = evaluation.choose_images(100, 10, 30)
    assert checked == list(range(0, 100, 10))
    assert len(others) == 30 and not set(checked) & set(others)
    assert max(others) > 90  # from all over the data
    assert evaluation.choose_images(4, 9, 9) == ([0, 1, 2, 3], [0, 1, 2, 3])


CONFIG = """
default_scope = 'mmvitcompress'
model = dict(
    type='ImageClassifier', num_classes=3,
    backbone=dict(type='CompressedViT', arch={arch!r}, **{merged!r}),
)
val_dataloader = dict(
    batch_size=4, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='TimmDataset', data_root={data!r}, split='val',
        transform=dict(input_size=32, crop_pct=1.0),
    ),
)
val_evaluator = dict(type='TopKAccuracy', topk=(1, 2))
"""


@pytest.fixture
def config(tmp_path):
    """A classifier's config, and 18 images of three kinds."""
    rng = np.random.default_rng(0)
    for kind in range(3):
        folder = tmp_path / 'data' / 'val' / str(kind)
        folder.mkdir(parents=True)
        for index in range(6):
            pixels = rng.integers(0, 120, (32, 32, 3)).astype(np.uint8)
            pixels[..., kind] += 120
            Image.fromarray(pixels).save(folder / f'{index}.png')
    file = tmp_path / 'classifier.py'
    data = str(tmp_path / 'data')
    file.write_text(CONFIG.format(arch=SMALL, merged=MERGED, data=data))
    return file


@pytest.fixture
def tool(monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location('export_onnx', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['export_onnx.py', *map(str, args)])
        cli.run(module.main)
        return capsys.readouterr().out

    return run


def test_tool_measures_float_and_int8(tool, config, tmp_path):
    out, figures = tmp_path / 'out' / 'c.onnx', tmp_path / 'c.json'
    options = ['--int8', '--check-images', 6, '--repeats', 1]
    printed = tool(config, out, *options, '--json', figures)
    report = json.loads(figures.read_text())
    assert report['relative_error']['onnx'] <= TOLERANCE
    rows = report['runtimes']
    assert list(rows) == ['pytorch', 'onnx', 'onnx int8']
    for name, row in rows.items():
        assert row['ms']['min'] <= row['ms']['median'] <= row['ms']['max']
        assert 0 <= row['metrics']['top1'] <= row['metrics']['top2'] <= 100
        assert name in printed
    assert rows['onnx']['metrics'] == rows['pytorch']['metrics']
    assert rows['onnx']['agreement'] == 1
    content = onnx.load(report['files']['onnx int8'])
    assert [p.key for p in content.metadata_props] == ['mmvitcompress']
    graph = content.graph
    operators = [node.op_type for node in graph.node]
    assert 'QuantizeLinear' in operators and 'Softmax' in operators
    int8 = {w.name for w in graph.initializer if w.data_type == 3}
    assert len(int8) >= 2 * 4 + 3  # of the blocks; stem and merges, head
    # quantised, the graph is near, but not the same
    images = torch.randn(2, 3, 32, 32)
    pair = [OnnxNetwork(f)(images)[0] for f in report['files'].values()]
    error = (pair[0] - pair[1]).abs().max() / pair[0].abs().max()
    assert 1e-5 < error < 0.5


def test_accuracy_is_that_of_the_graph(config):
    cfg = Config.fromfile(config)
    init_default_scope('mmvitcompress')
    model = shaken(MODELS.build(cfg.model))

    def always(kind):
        return lambda images: (torch.eye(3)[kind].expand(len(images), -1),)

    class Graph(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.forward = always(kind)

    models = {
        str(kind): evaluation.with_graph(model, 'all', Graph(kind))
        for kind in (0, 2)
    }
    dataset = evaluation.validation_data(cfg)
    # four images of kind 0, one of kind 2
    found = evaluation.compare_accuracy(cfg, models, dataset, [0, 1, 2, 3, 17])
    assert found['0']['metrics']['top1'] == pytest.approx(80)
    assert found['2']['metrics']['top1'] == pytest.approx(20)
    assert found['0']['agreement'] == 1 and found['2']['agreement'] == 0


def test_folder_goes_through_the_same_transforms(config, tmp_path):
    cfg = Config.fromfile(config)
    dataset = evaluation.validation_data(cfg)
    folder = str(tmp_path / 'data' / 'val')
    model = MODELS.build(cfg.model)
    images = evaluation.calibration_images(cfg, model, (32, 32), 18, folder)
    for image, (expected, _) in zip(images, dataset, strict=True):
        assert torch.equal(image[0], expected)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DataError, match='no images'):
        empty = str(tmp_path / 'empty')
        list(evaluation.calibration_images(cfg, model, (32, 32), 3, empty))


def test_tool_refuses(tool, config, tmp_path, capsys):
    for options, message in (
        (['x.txt'], 'must end in .onnx or .pt2'),
        (['x.pt2', '--int8'], 'take the target onnx or openvino'),
        (['x.onnx', '--checkpoint', 'no.pth'], "'no.pth' not found"),
        (
            ['x.onnx', '--repeats', '0'],
            'repeats must be a whole number',
        ),
    ):
        with pytest.raises(SystemExit) as status:
            tool(config, *options)
        assert status.value.code == 1
        assert message in capsys.readouterr().err


def test_tool_writes_what_torch_loads(tool, config, tmp_path):
    out = tmp_path / 'c.pt2'
    tool(config, out, '--part', 'encoder')
    (tokens,) = torch.export.load(out).module()(torch.randn(3, 3, 32, 32))
    assert tokens.shape == (3, 1 + 4 * 4, 12)
