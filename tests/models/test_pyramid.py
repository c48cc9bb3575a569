"""UnmergePyramid against UnmergeUpsample and mmseg's Feature2Pyramid."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from mmcv.cnn import ConvModule
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from torch import nn
from warm import warm_python

from mmvitcompress.engine.wrappers import cpu_has_bfloat16
from mmvitcompress.errors import ConfigError
from mmvitcompress.models import UnmergePyramid, UnmergeUpsample
from mmvitcompress.models.necks import pyramid
from mmvitcompress.models.necks.pyramid import pool
from mmvitcompress.tokens import TokenMap, TokenState
from mmvitcompress.tokens.methods.atme import merged
from mmvitcompress.tokens.methods.life import Slimmed

ROOT = Path(__file__).parents[2]
DIM = 6
H, V, S, D = 'horizontal', 'vertical', 'symmetric', 'diagonal'
MERGES = [
    ((), (), (), ()),
    ((), (H,), (H, V), (H, V)),
    ((H,), (H,), (V, H), (V,)),
    ((H, V), (V,), (V,), (H,)),
    ((V,), (H, V), (H, V, H), (H, V, H)),
    ((V, H, V), (S, S), (S,), (V, H, V)),
    ((S, S, S), (D, H), (D,), (H, D)),
    ((D,), (V, V), (H, H), (V, V, V)),
]
# after mmvitcompress, which lets mmcv do without compiled ops
Feature2Pyramid = MODELS.get('mmseg.Feature2Pyramid')
GRIDS = [(8, 8), (7, 8), (5, 9), (11, 6)]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def token_map(directions, grid, batch=2):
    state = TokenState.start(grid)
    for direction in directions:
        state = merged(state, direction)
    n = state.grid[0] * state.grid[1]
    tokens = torch.randn(batch, n, DIM, dtype=torch.float64)
    return TokenMap(tokens.requires_grad_(), state)


def slimmed(token, batch=2):
    """Half of the patches have left, in an order of their own."""
    count = token.tokens.shape[1]
    order = torch.stack([torch.randperm(count) for _ in range(batch)])
    stay = count - count // 2
    departed = torch.randn(batch, count - stay, DIM, dtype=torch.float64)
    tokens = token.tokens.detach()[:, :stay].clone().requires_grad_()
    record = Slimmed(order, order.argsort(1), (departed,))
    state = token.state.recording(record)
    return TokenMap(tokens, state)


def pair(norm_cfg, rescales=(4, 2, 1, 0.5)):
    """The reference and ours, with equal parameters and statistics."""
    reference = revert_sync_batchnorm(
        Feature2Pyramid(DIM, list(rescales), norm_cfg)
    ).double()
    for value in reference.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5)
    ours = UnmergePyramid(DIM, rescales, norm_cfg)
    ours = revert_sync_batchnorm(ours).double()
    ours.load_state_dict(reference.state_dict())  # strict
    return nn.Sequential(UnmergeUpsample(), reference), ours


def run(neck, inputs):
    """Outputs, gradients of inputs and parameters, and buffers."""
    for level in inputs:
        level.tokens.grad = None
    outputs = neck(inputs)
    generator = torch.Generator().manual_seed(1)
    loss = sum(
        (x * torch.randn(x.shape, dtype=x.dtype, generator=generator)).sum()
        for x in outputs
    )
    loss.backward()
    return [
        *outputs,
        *(level.tokens.grad.clone() for level in inputs),
        *(parameter.grad for parameter in neck.parameters()),
        *neck.buffers(),
    ]


def check_equal(inputs, norm_cfg, train, rescales=(4, 2, 1, 0.5)):
    reference, ours = pair(norm_cfg, rescales)
    for _ in range(2 if train else 1):  # running statistics go on
        expected = run(reference.train(train), inputs)
        found = run(ours.train(train), inputs)
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('grid', GRIDS)
@pytest.mark.parametrize('merges', MERGES)
def test_equals_restoring_first(merges, grid, train):
    inputs = [token_map(directions, grid) for directions in merges]
    check_equal(inputs, dict(type='SyncBN'), train)
    check_equal(inputs, dict(type='BN'), train, (2, 1, 0.5, 0.25))


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize(
    'norm_cfg',
    [
        dict(type='BN', momentum=None),
        dict(type='BN', track_running_stats=False),
        dict(type='BN', affine=False),
        dict(type='GN', num_groups=2),  # looks at all positions
        dict(type='IN'),
    ],
)
def test_any_norm(norm_cfg, train):
    inputs = [token_map((H, V, H), (7, 9)) for _ in range(4)]
    check_equal(inputs, norm_cfg, train)


def test_a_folded_norm_leaves_the_work_on_merged_tokens(monkeypatch):
    reference, ours = pair(dict(type='BN'))
    reference[1].upsample_4x[1] = ours.upsample_4x[1] = nn.Identity()
    inputs = [token_map((H, V), (7, 9)) for _ in range(4)]
    expected = reference(inputs)
    monkeypatch.setattr(nn.ConvTranspose2d, 'forward', None)
    for a, b in zip(ours(inputs), expected):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize('train', [False, True])
def test_slimmed_patches_return_first(train):
    inputs = [slimmed(token_map((H, V), (7, 6))) for _ in range(4)]
    check_equal(inputs, dict(type='BN'), train)


def test_full_maps_pass_as_they_are():
    reference, ours = pair(dict(type='BN'))
    maps = [torch.randn(2, DIM, 7, 8, dtype=torch.float64) for _ in range(4)]
    for a, b in zip(ours.eval()(maps), reference[1].eval()(maps)):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    'dtype, atol', [(torch.float32, 1e-4), (torch.float64, 1e-10)]
)
@pytest.mark.parametrize('batch', [1, 2])
def test_whole_maps_are_convolved_at_inference(
    batch, dtype, atol, monkeypatch
):
    """Without products of matrices, in the layout that heads want."""
    _, ours = pair(dict(type='BN'))
    ours = ours.to(dtype).eval()
    inputs = [token_map((), (7, 9), batch) for _ in range(4)]
    inputs = [TokenMap(t.detach().to(dtype), s) for t, s in inputs]
    laterals = [ConvModule(DIM, 5, 1, act_cfg=None) for _ in range(4)]
    for around in (None, [lateral.to(dtype) for lateral in laterals]):
        expected = ours(inputs, around)
        with torch.no_grad(), monkeypatch.context() as patch:
            patch.setattr(pyramid, 'upsample_tokens', None)
            found = ours(inputs, around)
        for a, b in zip(found, expected):
            torch.testing.assert_close(a, b, rtol=0, atol=atol)
        for a in found[:2] if dtype == torch.float32 else ():
            assert a.is_contiguous(memory_format=torch.channels_last)


def test_halving_gives_the_tokens_back():
    """By hand: what was merged 2x2 is its own maximum."""
    x = torch.arange(12.0).view(1, 1, 3, 4)
    assert torch.equal(pool(x, (2, 2), (6, 8), 2), x)
    assert torch.equal(pool(x, (2, 2), (5, 7), 2), x[:, :, :2, :3])
    wide = pool(x, (1, 2), (3, 8), 2)  # rows 0 and 1, all columns
    assert wide.tolist() == [[[[4, 5, 6, 7]]]]
    assert pool(x, (4, 2), (10, 8), 2)[0, 0, :, 0].tolist() == [0, 0, 4, 4, 8]


def test_same_names_as_feature2pyramid():
    for rescales in ([4, 2, 1, 0.5], [2, 1, 0.5, 0.25]):
        theirs = Feature2Pyramid(DIM, rescales).state_dict()
        ours = UnmergePyramid(DIM, rescales).state_dict()
        assert {k: v.shape for k, v in ours.items()} == {
            k: v.shape for k, v in theirs.items()
        }


def test_half_precision_keeps_its_type_and_sums_in_float32():
    reference, ours = pair(dict(type='BN'))
    inputs = [token_map((H, V), (33, 35)) for _ in range(4)]
    inputs = [TokenMap(t.detach().float(), s) for t, s in inputs]
    outputs = []
    for neck in (reference, ours):
        with torch.autocast('cpu', torch.bfloat16):
            outputs.append(neck.float().train()(inputs))
    for a, b in zip(*outputs):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a.float(), b.float(), rtol=0.02, atol=0.05)
    # CPUs without bfloat16 round convolutions by their shapes; sums in
    # bfloat16 would be wrong by 4e-3 and more
    bound = 1e-4 if cpu_has_bfloat16() else 1e-3
    for a, b in zip(ours.buffers(), reference.buffers()):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=bound, atol=1e-5)


def test_compiles_without_graph_breaks():
    _, ours = pair(dict(type='BN'))
    ours = ours.float().eval()
    inputs = [token_map((H, V), (7, 8)) for _ in range(4)]
    inputs = [TokenMap(t.detach().float(), s) for t, s in inputs]
    compiled = torch.compile(ours, backend='eager', fullgraph=True)
    for a, b in zip(compiled(inputs), ours(inputs)):
        assert torch.equal(a, b)


PROCESS = """
import sys
import torch
import torch.distributed as dist
from mmvitcompress.compat.cpu_ddp import use_cpu_sync_bn
from mmvitcompress.models import UnmergePyramid
from mmvitcompress.tokens import TokenMap, TokenState
from mmvitcompress.tokens.methods.atme import merged

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
tokens, (grid, directions), weights, dim = torch.load(f'{folder}/job.pt')
state = TokenState.start(grid)
for direction in directions:
    state = merged(state, direction)
dist.init_process_group(
    'gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2
)
neck = UnmergePyramid(dim, norm_cfg=dict(type='SyncBN')).double()
neck.load_state_dict(weights)
neck = use_cpu_sync_bn(neck).train()
share = [slice(0, 1), slice(1, 3)][rank]
tokens = [t[share].clone().requires_grad_() for t in tokens]
outputs = neck([TokenMap(t, state) for t in tokens])
sum(x.square().sum() for x in outputs).backward()
torch.save(
    ([x.detach() for x in outputs], [t.grad for t in tokens],
     list(neck.buffers())),
    f'{folder}/{rank}.pt',
)
"""


@pytest.mark.slow
def test_sync_bn_sums_over_processes(tmp_path):
    """Two processes with one and two images equal one with all three."""
    reference, ours = pair(dict(type='SyncBN'))
    inputs = [token_map((H, V), (5, 7), batch=3) for _ in range(4)]
    tokens = [level.tokens.detach() for level in inputs]
    merges = (5, 7), (H, V)
    torch.save((tokens, merges, ours.state_dict(), DIM), tmp_path / 'job.pt')
    processes = [
        subprocess.Popen(
            [warm_python(), '-c', PROCESS, str(rank), str(tmp_path)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, 'PYTHONPATH': str(ROOT)},
        )
        for rank in range(2)
    ]
    for process in processes:
        assert process.wait(600) == 0, process.stderr.read()

    expected = reference.train()(inputs)
    sum(x.square().sum() for x in expected).backward()
    first, second = (torch.load(tmp_path / f'{rank}.pt') for rank in (0, 1))
    for level in range(4):
        for part, whole in (
            (0, expected[level]),
            (1, inputs[level].tokens.grad),
        ):
            found = torch.cat([first[part][level], second[part][level]])
            torch.testing.assert_close(found, whole, rtol=0, atol=1e-10)
    for a, b, c in zip(first[2], second[2], reference.buffers()):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c, rtol=0, atol=1e-10)


def test_refusals():
    for rescales in ((4, 3, 1, 0.5), (4, 2, 2, 1)):
        with pytest.raises(ConfigError, match='rescales must be of'):
            UnmergePyramid(DIM, rescales)
    with pytest.raises(ConfigError, match='init_cfg'):
        UnmergePyramid(DIM, init_cfg=dict(type='Pretrained'))
    neck = UnmergePyramid(DIM)
    with pytest.raises(ConfigError, match='each of 1 levels'):
        neck([torch.zeros(1, DIM, 4, 4)])
    with pytest.raises(ConfigError, match=r'embed_dim must be .* 9, but got'):
        neck([torch.zeros(1, 9, 4, 4)] * 4)


def test_registered_with_and_without_prefix():
    for name in ('UnmergePyramid', 'mmvitcompress.UnmergePyramid'):
        assert MODELS.get(name) is UnmergePyramid
