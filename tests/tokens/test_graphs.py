"""Graphs of every token method: of torch.compile, and of ONNX.

The rest of what methods keep is in test_methods.py; this takes as long as all
of that, so that two processes can share it.
"""

import pytest
import torch
from token_methods import ROWS, SINGLE, build, images, run, runs, sizes
from torch import nn

from mmvitcompress.deploy import DeployedNetwork, GraphSpec, export_onnx
from mmvitcompress.models import UnmergePyramid, UnmergeUpsample


@runs(SINGLE, ['vit', 'rotary', 'gated', 'windows', 'swin'])
def test_one_graph_without_breaks(net, methods):
    torch._dynamo.reset()
    model = build(net, methods, out_indices=[1, -1])
    graph = torch.compile(
        model, backend='eager', fullgraph=True, dynamic=False
    )
    x = images(sizes(net)[1])
    for a, b in zip(run(graph, x), run(model, x), strict=True):
        assert torch.equal(a, b)


class Necks(nn.Module):
    """All maps of several necks."""

    def __init__(self, *necks):
        super().__init__()
        self.necks = nn.ModuleList(necks)

    def forward(self, levels):
        return [x for neck in self.necks for x in neck(levels)]


@pytest.mark.slow
@runs(SINGLE, ['vit', 'rotary', 'gated', 'swin'])
def test_onnx(net, methods, tmp_path):
    """``export_onnx`` compares the graph under onnxruntime."""
    dynamic = {ROWS[key].dynamic for key in methods}
    if None in dynamic:
        pytest.skip('no graph of this method')
    model = nn.Module()
    model.backbone = build(net, methods, restore=False, out_indices=[1, -1])
    necks = [UnmergeUpsample()]
    if net != 'swin':
        necks.append(UnmergePyramid(24, (2, 0.5), dict(type='BN')))
    model.neck = Necks(*necks)
    if net == 'gated':  # symbols take twice the time; the other nets have them
        dynamic = {'none'}
    spec = GraphSpec(sizes(net)[0], min(dynamic, key=['none', 'batch'].index))
    network = DeployedNetwork(model.float().eval(), 'encoder', spec)
    export_onnx(network, tmp_path / 'graph.onnx')
