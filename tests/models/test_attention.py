"""Attention of unequal widths against the formula, and its kernels."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmvitcompress.analysis.macs import count_macs
from mmvitcompress.models.layers.attend import attend

WIDTHS = [(8, 8), (5, 8), (8, 3)]


def heads(qk, v, dtype=torch.float64):
    torch.manual_seed(0)
    return [torch.randn(2, 3, 7, n, dtype=dtype) for n in (qk, qk, v)]


def formula(q, k, v, bias=None, scale=None):
    logits = q @ k.transpose(2, 3) * (scale or q.shape[-1] ** -0.5)
    return (logits if bias is None else logits + bias).softmax(-1) @ v


@pytest.mark.parametrize('qk, v', WIDTHS)
@pytest.mark.parametrize('biased', [False, True])
@pytest.mark.parametrize('scale', [None, 0.3])
def test_by_the_formula(qk, v, biased, scale):
    bias = torch.randn(2, 1, 1, 7).double() if biased else None
    results = []
    for function in (formula, attend):
        inputs = [x.requires_grad_() for x in heads(qk, v)]
        out = function(*inputs, bias, scale)
        out.cos().sum().backward()
        results.append([out, *(x.grad for x in inputs)])
    for expected, found in zip(*results):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


class Names(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('qk, v', WIDTHS)
def test_the_fused_kernel_serves_all_widths(qk, v):
    with torch.no_grad(), Names() as names:
        attend(*heads(qk, v, torch.float32))
    fused = '_scaled_dot_product_flash_attention_for_cpu'
    assert fused in names.seen and 'bmm' not in names.seen


@pytest.mark.parametrize('qk, v', WIDTHS)
def test_zeros_are_not_counted(qk, v):
    counted = count_macs(attend, *heads(qk, v))
    assert counted.total == 2 * 3 * 7 * 7 * (qk + v)


class Module(torch.nn.Module):
    def forward(self, q, k, v):
        return attend(q, k, v)


def test_graphs_for_other_runtimes_are_not_padded():
    inputs = heads(5, 8)
    graph = torch.export.export(Module(), tuple(inputs))
    assert not [n for n in graph.graph.nodes if 'pad' in str(n.target)]
    torch.testing.assert_close(graph.module()(*inputs), formula(*inputs))
