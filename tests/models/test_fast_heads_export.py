"""Segmentors with our heads as graphs, against themselves in PyTorch."""

import onnx
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmvitcompress.deploy import (
    DeployedNetwork,
    GraphSpec,
    OnnxNetwork,
    export_onnx,
)

pytestmark = pytest.mark.slow

pytest.importorskip('onnxruntime')
SHAPE = (28, 44)  # 7x11 patches
NORM = dict(type='BN')
SHARED = dict(in_channels=[12] * 4, num_classes=4, in_index=[0, 1, 2, 3])
HEADS = {
    'upernet': dict(
        type='mmvitcompress.FastUPerHead',
        channels=8,
        pool_scales=(1, 3),
        norm_cfg=NORM,
        **SHARED,
    ),
    'semantic fpn': dict(
        type='mmvitcompress.FastFPNHead',
        channels=8,
        feature_strides=[1, 2, 4, 8],
        norm_cfg=NORM,
        **SHARED,
    ),
    'cascade': dict(
        type='mmvitcompress.CascadeDecodeHead', widths=(4, 6, 8, 10), **SHARED
    ),
}


def segmentor(name):
    init_default_scope('mmseg')
    neck = dict(
        type='mmvitcompress.UnmergePyramid', embed_dim=12, norm_cfg=NORM
    )
    if name == 'semantic fpn':
        neck.update(type='mmvitcompress.UnmergeFPN', out_channels=12)
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='EncoderDecoder',
            backbone=dict(
                type='mmvitcompress.CompressedViT',
                arch=dict(
                    embed_dim=12,
                    depth=4,
                    num_heads=2,
                    patch_size=4,
                    img_size=32,
                    mlp_dims=(16, 16, 16, 16),
                ),
                token_merging=dict(layers=(2, 3)),
                out_indices=(0, 1, 2, 3),
                restore=False,
            ),
            neck=neck,
            decode_head=HEADS[name],
            test_cfg=ConfigDict(mode='whole'),
        )
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.mark.parametrize('name', HEADS)
def test_graphs_take_any_number_of_images(name, tmp_path):
    model = segmentor(name)
    network = DeployedNetwork(model, 'all', GraphSpec(SHAPE))
    images = torch.randn(3, 3, *SHAPE)
    with torch.no_grad():
        expected = model(images, mode='tensor')
    export_onnx(network, tmp_path / 'graph.onnx')
    (found,) = OnnxNetwork(tmp_path / 'graph.onnx')(images)
    scale = expected.abs().max()
    torch.testing.assert_close(
        found / scale, expected / scale, rtol=0, atol=1e-4
    )


@pytest.mark.parametrize('name', ['upernet', 'semantic fpn'])
def test_graphs_take_any_size(name, tmp_path):
    model, path = segmentor(name), tmp_path / 'graph.onnx'
    network = DeployedNetwork(model, 'all', GraphSpec((32, 48), 'size'))
    assert export_onnx(network, path) < 1e-5
    graph = OnnxNetwork(path)
    for shape in ((32, 32), (8, 40), (56, 24), (72, 88)):
        images = torch.randn(3, 3, *shape)
        with torch.no_grad():
            expected = model(images, mode='tensor')
        (found,) = graph(images)
        scale = expected.abs().max()
        torch.testing.assert_close(
            found / scale, expected / scale, rtol=0, atol=1e-5
        )
    content = onnx.load(path).graph
    assert not set(fragile(content))


def fragile(graph):
    """Operators that OpenVINO is known to compute otherwise."""
    shapes = {
        value.name: value.type.tensor_type.shape.dim
        for value in graph.value_info
    }
    for node in graph.node:
        options = {a.name: a for a in node.attribute}
        if node.op_type == 'Resize' and options['mode'].s == b'cubic':
            yield 'cubic Resize'
        if node.op_type == 'Expand' and len(shapes[node.output[0]]) > 6:
            yield 'Expand of more than six dimensions'
        if node.op_type == 'AveragePool':
            yield 'windows of fixed sizes'


def test_what_is_fragile_would_be_seen():
    shape = onnx.helper.make_tensor_value_info('b', 1, [1] * 7)
    nodes = [
        onnx.helper.make_node('Resize', ['a'], ['c'], mode='cubic'),
        onnx.helper.make_node('Expand', ['a'], ['b']),
    ]
    graph = onnx.helper.make_graph(nodes, 'g', [], [], value_info=[shape])
    assert len(set(fragile(graph))) == 2
