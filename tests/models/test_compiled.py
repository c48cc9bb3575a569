"""torch.compile: one graph without breaks, forward and backward, any size."""

import pytest
import torch

from mmvitcompress.models import CompressedViT

pytestmark = pytest.mark.slow

SMALL = dict(
    embed_dim=12, depth=2, num_heads=2, patch_size=4, img_size=32, mlp_dims=16
)
PRUNED = dict(qk_dims=(6, 4), v_dims=(4, 6), mlp_dims=(16, 8))
MERGING = dict(layers=(1, 2))  # horizontally, then vertically
SLIMMING = dict(base_layer=1, layers=(1,))
METHODS = {
    'dense': {},
    'atme': dict(token_merging=MERGING),
    'cait': dict(PRUNED, token_merging=MERGING),
    'lifeslim': dict(patch_slimming=SLIMMING),
    'rotary': dict(
        rope={},
        pos_embed='none',
        mlp='swiglu',
        head_dim=8,
        qk_dims=(8, 4),
        token_merging=MERGING,
    ),
}
MIXES = {
    'by convolution': dict(token_merging=dict(layers=(2,), conv=True)),
    'symmetric': dict(token_merging=dict(layers=(2,), directions='symmetric')),
    'diagonal': dict(token_merging=dict(layers=(2,), directions='diagonal')),
    'both': dict(token_merging=dict(layers=(1,)), patch_slimming=SLIMMING),
}
EVEN = (2, 3, 40, 56)  # whole patches, and even grids wherever they merge
ODD = (1, 3, 26, 33)  # padded to whole patches, and merges to whole pairs

OWN_GRAPH = [  # the limits that ViT's docstring names
    (1, 3, 40, 56),  # a batch of one
    (2, 3, 32, 32),  # the trained grid
    (2, 3, 38, 56),  # padded to whole patches
    (2, 3, 40, 52),  # an odd grid, merged
]


@pytest.fixture(autouse=True)
def fresh():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch._dynamo.reset()
    yield
    torch.set_num_threads(threads)


def small(method, **kwargs):
    torch.manual_seed(0)
    arch = {**SMALL, **(METHODS | MIXES)[method]}
    model = CompressedViT(arch, **kwargs)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def run(model, x):
    """Outputs, and the gradients of all parameters that train."""
    trained = [p for p in model.parameters() if p.requires_grad]
    outputs = model(x)
    # by weights of their own: no place may be mistaken for another
    torch.manual_seed(1)
    loss = sum((out * torch.randn(out.shape)).sum() for out in outputs)
    gradients = torch.autograd.grad(loss, trained)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    return *outputs, *gradients


def assert_same(graph, model, shape):
    x = torch.randn(shape)
    for found, expected in zip(run(graph, x), run(model, x), strict=True):
        scale = expected.abs().max().item()
        torch.testing.assert_close(
            found, expected, rtol=1e-4, atol=1e-5 * scale
        )


def compiled(model, dynamic, backend='aot_eager'):
    return torch.compile(
        model, backend=backend, fullgraph=True, dynamic=dynamic
    )


@pytest.mark.parametrize('shape', [EVEN, ODD], ids=['even', 'odd'])
@pytest.mark.parametrize('method', METHODS | MIXES)
def test_one_graph_of_one_size(method, shape):
    model = small(method)
    assert_same(compiled(model, False), model, shape)


@pytest.mark.parametrize('method', ['dense', 'cait', 'lifeslim', 'rotary'])
# floats as symbols, too, would only make torch trace everything twice
@torch._dynamo.config.patch(specialize_float=True)
def test_one_graph_of_any_size(method):
    model = small(method, out_indices=[1])
    graph = compiled(model, True)
    assert_same(graph, model, EVEN)
    with torch.compiler.set_stance('fail_on_recompile'):
        for shape in ((3, 3, 48, 40), (5, 3, 72, 64)):
            assert_same(graph, model, shape)
        for shape in OWN_GRAPH if method == 'cait' else ():
            with pytest.raises(RuntimeError, match='recompil'):
                graph(torch.randn(shape))
