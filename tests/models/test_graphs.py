"""What graphs need: no values in the way, nothing that waits for a device."""

import pytest
import torch
from small_vits import SMALL
from timm.layers import resample_abs_pos_embed
from torch.fx.experimental.proxy_tensor import make_fx

from mmvitcompress.models import CompressedViT
from mmvitcompress.models.layers.positions import (
    cubic_weights,
    resample_position,
)

SLIMMING = dict(base_layer=2, layers=(2, 3))
METHODS = {
    'dense': {},
    'atme': dict(token_merging=dict(layers=(2, 3))),
    'symmetric': dict(token_merging=dict(layers=(2,), directions='symmetric')),
    'slim': dict(patch_slimming=SLIMMING),
    'soft': dict(patch_slimming=SLIMMING, soft_slimming=True),
    'windows': dict(token_merging=dict(layers=(2,)), window_size=3),
    'rotary': dict(token_merging=dict(layers=(2,))),
    'rotary, fused': dict(token_reorganization=dict(layers=(2, 3))),
}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(method, **kwargs):
    turned = dict(rope={}, pos_embed='none') if 'rotary' in method else {}
    return CompressedViT({**SMALL, **turned}, **METHODS[method], **kwargs)


def small(method, **kwargs):
    torch.manual_seed(0)
    model = build(method, **kwargs)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize('new', [(32, 32), (9, 21), (14, 20), (1, 3)])
@pytest.mark.parametrize('prefix', [0, 2])
def test_positions_as_products_equal_timm(new, prefix, monkeypatch):
    pos = torch.randn(1, prefix + 14 * 15, 8, dtype=torch.float32)
    peer = resample_abs_pos_embed(
        pos, list(new), old_size=[14, 15], num_prefix_tokens=prefix
    )
    monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: True)
    with torch.autocast('cpu', torch.bfloat16):
        found = resample_position(pos, (14, 15), new, prefix)
    assert found.dtype == pos.dtype
    torch.testing.assert_close(found, peer, rtol=0, atol=1e-5)


@pytest.mark.parametrize('old', [1, 2, 14, 37])
@pytest.mark.parametrize('new', [1, 3, 14, 32, 65])
def test_cubic_weights_are_those_of_torch(old, new):
    same = torch.eye(old)[None, None]
    expected = torch.nn.functional.interpolate(
        same, (new, old), mode='bicubic', antialias=True
    )
    found = cubic_weights(old, new, same.device)
    torch.testing.assert_close(found, expected[0, 0], rtol=0, atol=1e-5)


WAITING = {'_local_scalar_dense', 'nonzero', 'masked_select', '_unique2'}
BRINGING = {'lift_fresh', 'lift_fresh_copy', '_to_copy'}


@pytest.mark.parametrize('method', METHODS)
def test_nothing_waits_for_the_device(method):
    """What CUDA graphs need: no value is read, no constant is brought."""
    model = small(method).eval()
    with torch.no_grad():
        graph = make_fx(model)(torch.randn(2, 3, 36, 44)).graph
    called = {
        node.target.overloadpacket.__name__
        for node in graph.nodes
        if isinstance(node.target, torch._ops.OpOverload)
        # another type on the same device is no matter
        and set(node.kwargs) != {'dtype'}
    }
    assert 'convolution' in called
    assert not called & (WAITING | BRINGING)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('training', [False, True])
def test_shapes_follow_without_any_values(method, training):
    """On the meta device, whose tensors have none."""
    model = small(method, drop_path_rate=0.2).train(training)
    expected = [y.shape for y in model(torch.randn(2, 3, 36, 44))]
    with torch.device('meta'):
        model = build(method, drop_path_rate=0.2)
    found = model.train(training)(torch.empty(2, 3, 36, 44, device='meta'))
    assert [y.shape for y in found] == expected
