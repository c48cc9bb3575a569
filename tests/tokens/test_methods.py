"""What every token method keeps, on every net that takes it.

A new method adds a row to ``token_methods.ROWS``, and no test.
"""

import json
import re

import pytest
import torch
from mmengine.registry import MODELS
from timm_vits import images as timm_images
from timm_vits import make
from token_methods import (
    CASES,
    FIRST,
    LAST,
    NETS,
    PREFIX,
    ROWS,
    SINGLE,
    Given,
    arch,
    assert_near,
    blocks,
    build,
    images,
    run,
    runs,
    sizes,
    takes,
)
from torch import nn

import mmvitcompress
from mmvitcompress.analysis.macs import count_macs, count_params
from mmvitcompress.arch.swin import SwinArch
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.arch.zoo import arch_from_dict, get_arch
from mmvitcompress.channels import fold
from mmvitcompress.checkpoints.file import write_checkpoint
from mmvitcompress.deploy import optimize_for_inference
from mmvitcompress.errors import CheckpointError, ConfigError
from mmvitcompress.models import UnmergePyramid, UnmergeUpsample
from mmvitcompress.models.swin import Swin
from mmvitcompress.models.vit import ViT
from mmvitcompress.planning import plan_arch
from mmvitcompress.tokens import METHODS, TokenState, restore
from mmvitcompress.tokens.losses import collect_losses

# after mmvitcompress, which lets mmcv do without compiled ops
Feature2Pyramid = MODELS.get('mmseg.Feature2Pyramid')
NOTHING = {
    f'{key}{i}': {key: arguments}
    for key, row in ROWS.items()
    for i, arguments in enumerate(row.nothing)
}
ALIKE = {
    name: methods
    for name, methods in CASES.items()
    if not any(ROWS[key].apart for key in methods)
}
LEARNING = {
    name: methods
    for name, methods in CASES.items()
    if any(METHODS[key].learns() for key in methods)
}


def untrained(methods):
    """What is said of layers that must not start without weights."""
    return [
        METHODS[key].untrained for key in methods if METHODS[key].untrained
    ]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_every_method_has_a_row():
    assert set(ROWS) == set(METHODS)


@pytest.mark.parametrize('key', ROWS)
@pytest.mark.parametrize('net', NETS)
def test_rows_tell_what_methods_are(key, net):
    if not takes(net, FIRST[key]):
        with pytest.raises(ConfigError, match=key):
            arch(net, FIRST[key])
        return
    with_it, without = arch(net, FIRST[key]), arch(net, {})
    assert (with_it.params() > without.params()) == ROWS[key].params
    assert not ROWS[key].params or METHODS[key].start


@pytest.mark.parametrize('key', LAST)
def test_merging_after_the_last_grid_is_refused(key):
    late = dict(token_merging=dict(layers=(LAST[key] + 1,)))
    methods = FIRST[key] | late
    with pytest.raises(ConfigError, match='merge earlier'):
        arch('vit', methods)


# -- tokens -----------------------------------------------------------------


def dense_twin(model, net, **kwargs):
    """The net without token methods, with the same weights."""
    dense = build(net, {}, **kwargs)
    weights = model.state_dict()
    dense.load_state_dict({k: weights[k] for k in dense.state_dict()})
    return dense


@runs(NOTHING)
def test_reducing_nothing_changes_nothing(net, methods):
    model = build(net, methods)
    dense = dense_twin(model, net)
    for size in sizes(net)[:2]:
        x = images(size)
        assert_near(run(model, x), run(dense, x))


@runs(ALIKE)
def test_one_patch_has_nothing_to_reduce(net, methods):
    """Merges start as means: of a token and itself."""
    model = build(net, methods, std=None)
    x = images(sizes(net)[-1])
    assert_near(run(model, x), run(dense_twin(model, net), x))


@runs(CASES)
def test_counts_are_those_that_arrive(net, methods):
    model = build(net, methods, out_type='raw')
    seen, prefix = {}, PREFIX[net]

    def note(norm, args):
        # others that they attend to come second
        seen.setdefault(norm, args[0].shape[1:-1])

    for block in blocks(model):
        for norm in (block.norm1, block.norm2):
            norm.register_forward_pre_hook(note)
    for size in sizes(net):
        seen.clear()
        outputs = run(model, images(size, batch=1))
        shapes = [*seen.values()]
        found = [shape.numel() - prefix for shape in shapes]
        counts = model.arch.counts(size)
        assert found == [n for c in counts for n in (c.attention, c.mlp)]
        assert outputs[-1].shape[1] - prefix == counts[-1].left
        if net == 'swin':
            assert shapes[::2] == [
                c.grid if model.arch.has_windows(*place) else (c.attention,)
                for *place, c in model.arch.walk(size)
            ]


@torch.no_grad()
def told_apart(net, methods, grid):
    """Outputs of a net whose patches are unit vectors, and whose blocks add
    nothing: what a token is made of can be seen in it."""
    count, dim = grid[0] * grid[1], 64
    x = torch.eye(dim, dtype=torch.float64)[:count].expand(2, -1, -1)
    torch.manual_seed(0)
    if net == 'swin':
        shape = NETS[net] | dict(embed_dim=dim // 4, qk_dims=4, v_dims=4)
        model = Swin(SwinArch(**shape, **methods)).double()
        model.layers[2].downsample = Given(x.unflatten(1, grid))
        size, last = [16 * side for side in grid], 2
    else:
        shape = NETS[net] | dict(embed_dim=dim, num_heads=4)
        model = ViT(ViTArch(**shape, **methods)).double()
        head = torch.randn(2, PREFIX[net], dim, dtype=torch.float64)
        given = torch.cat([head, x], 1), TokenState.start(grid)
        model.embed = lambda _: given
        size, last = [4 * side for side in grid], 3
    model.norm = None
    for block in blocks(model):
        for linear in (block.attn.proj, block.mlp.fc2):
            nn.init.zeros_(linear.weight)
    tokens, state = model(images(size).double(), take=(last,))[0]
    if net != 'swin':
        assert torch.equal(tokens[:, : PREFIX[net]], head)
    return tokens[:, PREFIX[net] :], state


GRIDS = [(1, 1), (1, 7), (6, 1), (5, 3), (2, 9), (7, 9), (8, 8)]


@runs(CASES)
def test_each_place_gets_the_token_that_holds_it(net, methods):
    for grid in GRIDS:
        tokens, state = told_apart(net, methods, grid)
        maps = restore(tokens, state)
        assert maps.shape == (2, 64, *grid)
        for restored, left in zip(maps.flatten(2).transpose(1, 2), tokens):
            places = len(restored)
            # which patches a place's token is made of, and where that went
            members = restored[:, :places] > 0
            same = (restored[:, None] == restored).all(-1)
            assert members.diagonal().all()
            assert torch.equal(members, same)
            assert not restored[:, places:].any()
            # none is lost
            assert (left[:, None] == restored).all(-1).any(1).all()


@runs(CASES)
def test_backbone_and_neck_restore_alike(net, methods):
    model = build(net, methods)
    for size in sizes(net):
        model.restore = False
        reduced = run(model, images(size))
        model.restore = True
        for mode in ('nearest', 'bilinear'):
            model.restore_mode, grid = mode, model.arch.grid(size)
            full = run(model, images(size))
            restored = UnmergeUpsample(mode)(reduced)
            for a, b in zip(restored, full, strict=True):
                assert torch.equal(a, b) and a.shape[2:] == grid
                if net == 'swin':
                    grid = tuple(-(-side // 2) for side in grid)


@runs(CASES, ['no_prefix', 'vit', 'registers'])
def test_the_final_norm_reaches_every_place(net, methods):
    """What left earlier has to go through it, too."""
    model = build(net, methods, final_norm=True)
    x = images(sizes(net)[1])
    found, norm = run(model, x), model.norm
    model.norm = None
    expected = [
        norm(level.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        for level in run(model, x)
    ]
    assert_near(found, expected)


@runs(CASES, ['vit'])
def test_mmsegs_final_norm_reaches_every_place_of_the_last(net, methods):
    model = build(net, methods, final_norm='last', out_indices=[-1, 0])
    x = images(sizes(net)[1])
    last, first = run(model, x)
    model.first_normed = 0
    assert torch.equal(run(model, x)[0], last)
    model.norm = None
    assert torch.equal(run(model, x)[1], first)
    with pytest.raises(ConfigError, match="final_norm='last' norms block"):
        build(net, methods, final_norm='last', out_indices=[0, 1])


@runs(CASES)
def test_images_do_not_influence_each_other(net, methods):
    model = build(net, methods)
    x = images(sizes(net)[1], batch=3)
    together = run(model, x)
    for i in range(3):
        alone = run(model, x[i : i + 1])
        assert_near(alone, [level[i : i + 1] for level in together])


# -- checkpoints ------------------------------------------------------------


@runs(CASES)
def test_a_checkpoint_is_all_that_it_takes(net, methods, tmp_path):
    model = build(net, methods, final_norm=True)
    x = images(sizes(net)[1])
    expected = run(model, x)
    kind = type(model)
    for name in ('model.pth', 'model.safetensors'):
        path = tmp_path / name
        write_checkpoint(path, model.state_dict(), model.arch)
        again = kind(checkpoint=str(path), final_norm=True).double().eval()
        assert again.arch == model.arch
        for a, b in zip(run(again, x), expected, strict=True):
            assert torch.equal(a, b)
    # what comes after the wanted outputs isn't built
    first = kind(checkpoint=str(path), out_type='raw', out_indices=[0])
    assert len(blocks(first)) == 1
    model.out_type, model.out_indices, model.norm = 'raw', (0,), None
    for a, b in zip(run(first.double().eval(), x), run(model, x)):
        assert torch.equal(a, b)


@runs(CASES)
def test_json_round_trip(net, methods, tmp_path):
    whole = arch(net, methods)
    content = json.loads(json.dumps(whole.to_dict()))
    again = arch_from_dict(content)
    assert again == whole and hash(again) == hash(whole)
    assert again.to_dict() == content and repr(again) == repr(whole)
    whole.save(tmp_path / 'arch.json')
    assert get_arch(str(tmp_path / 'arch.json')) == whole


@runs(SINGLE)
def test_a_dense_checkpoint_is_a_start(net, methods, tmp_path):
    dense = build(net, {})
    path = str(tmp_path / 'dense.pth')
    write_checkpoint(path, dense.state_dict(), dense.arch)
    kind, kwargs = type(dense), dict(checkpoint=path, **methods)
    for remedy in untrained(methods):
        with pytest.raises(CheckpointError, match=re.escape(remedy)):
            kind(NETS[net], **kwargs)
        kwargs['soft_slimming'] = True
    loaded = kind(NETS[net], **kwargs).double()
    assert loaded.arch == arch(net, methods)
    weights = loaded.state_dict()
    table = 'attn.relative_position_bias_table'
    without = {
        f'layers.{stage}.blocks.{block}.{table}'
        for stage, block, _ in (loaded.arch.walk() if net == 'swin' else ())
        if not loaded.arch.has_windows(stage, block)
    }
    assert without.isdisjoint(weights)
    for name, value in dense.state_dict().items():
        if name not in without:
            assert torch.equal(weights[name], value), name


# -- training ---------------------------------------------------------------


@runs(CASES, ['vit', 'registers', 'rotary', 'gated', 'windows', 'swin'])
@pytest.mark.parametrize('compactors', [False, True])
def test_all_that_learns_gets_gradients(net, methods, compactors):
    learning = [key for key in methods if METHODS[key].untrained]
    soft = any(METHODS[key].learns() for key in methods)
    ways = [{}, dict(soft_slimming=True)] if soft else [{}]
    idle = [f'{key}.{name}' for key in methods for name in ROWS[key].idle]
    x = images(sizes(net)[1])
    for way in ways:
        gradients = []
        for with_cp in (False, True):
            kwargs = dict(with_cp=with_cp, compactors=compactors, **way)
            model = build(net, methods, **kwargs).train()
            torch.manual_seed(2)
            # by weights of their own: no place may be mistaken for another
            with collect_losses() as auxiliary:
                maps = model(x)
            total = sum((y * torch.randn_like(y)).sum() for y in maps)
            sum(auxiliary.values(), total).backward()
            gradients.append([p.grad for p in model.parameters()])
        frozen = {
            name.partition('.')[0]
            for name, p in model.named_parameters()
            if not p.requires_grad
        }
        assert frozen == (set() if way else set(learning))
        for (name, p), a, b in zip(model.named_parameters(), *gradients):
            if p.requires_grad:
                assert a.abs().sum() > 0 or name in idle, name
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@runs(LEARNING, ['vit', 'registers', 'rotary'])
def test_what_learns_is_evaluated_as_it_will_be_used(net, methods):
    soft = build(net, methods, soft_slimming=True)
    x = images(sizes(net)[1])
    became = {key: getattr(soft, key).learned() for key in methods}
    hard = build(net, {k: v or methods[k] for k, v in became.items()})
    own = hard.state_dict()
    weights = {k: v for k, v in soft.state_dict().items() if k in own}
    hard.load_state_dict(weights)
    expected = run(hard, x)
    for a, b in zip(run(soft, x), expected, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(run(soft.train(), x)[2:], expected[2:]):
        assert not torch.allclose(a, b, atol=1e-3)


@runs(SINGLE, ['vit', 'gated', 'swin'])
def test_parameters_have_their_place(net, methods):
    """For layer-wise decay, and for what is frozen."""
    model = build(net, methods, frozen_stages=4)
    for name, parameter in model.named_parameters():
        layer, count = model.get_layer_depth(name)
        if name.partition('.')[0] in methods:
            assert 1 <= layer <= count - 2
        assert not parameter.requires_grad or layer == count - 1, name


@runs(SINGLE, ['vit', 'rotary', 'gated', 'windows', 'swin'])
def test_compactors_fold_away(net, methods):
    model = build(net, methods, compactors=True)
    whole, weights = fold(model)
    assert whole == arch(net, methods)
    folded = build(net, methods)
    folded.load_state_dict(weights)
    x = images(sizes(net)[1])
    assert_near(run(folded, x), run(model, x), 1e-10)


# -- precision and graphs ---------------------------------------------------


@runs(CASES)
def test_autocast(net, methods):
    model = build(net, methods, restore=False).float()
    x = images(sizes(net)[1]).float()
    exact = run(model, x)
    with torch.autocast('cpu', torch.bfloat16):
        rough = run(model, x)
    # rounding may choose others among tokens that are nearly alike
    chooses = any(ROWS[key].chooses for key in methods)
    for (a, state), (b, _) in zip(rough, exact, strict=True):
        assert a.shape == b.shape and restore(a, state).isfinite().all()
        if not chooses:
            assert torch.cosine_similarity(a.float(), b, -1).min() > 0.99


@runs(CASES, ['no_prefix', 'vit', 'registers', 'windows'])
def test_pyramid_equals_restoring_first(net, methods):
    model = build(net, methods, restore=False)
    torch.manual_seed(1)
    norm = dict(type='BN')
    ours = UnmergePyramid(24, norm_cfg=norm).double()
    theirs = Feature2Pyramid(24, [4, 2, 1, 0.5], norm).double()
    for value in theirs.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5)
    ours.load_state_dict(theirs.state_dict())
    for size in sizes(net)[:2]:
        levels = run(model, images(size))
        for train in (True, False):
            found = ours.train(train)(levels)
            expected = theirs.train(train)(UnmergeUpsample()(levels))
            assert_near(found, expected, 1e-10)
    assert_near(ours.buffers(), theirs.buffers(), 1e-10)


@runs(SINGLE, ['vit', 'registers', 'rotary', 'gated'])
def test_optimised_copies_are_equal(net, methods):
    model = build(net, methods)
    x = images(sizes(net)[1])
    assert_near(run(optimize_for_inference(model), x), run(model, x), 1e-9)


# -- cost -------------------------------------------------------------------


@runs(CASES)
def test_costs_are_those_that_run(net, methods):
    whole = arch(net, methods)
    kind, cut = (Swin, 'stages') if net == 'swin' else (ViT, 'depth')
    for options in ({}, {cut: 3, 'final_norm': False}):
        model = kind(whole, **options).eval()
        assert count_params(model)['other'] == whole.params(**options)
        for size in sizes(net)[:2]:
            x = images(size, batch=1).float()
            for convention in ('fvcore', 'matmul'):
                count = count_macs(model, x, convention=convention)
                closed = whole.macs(size, convention=convention, **options)
                assert count.total == closed
                # positions of other grids are interpolated
                assert all('bicubic' in name for name in count.uncounted)


@runs(SINGLE, ['vit'])
def test_compress_and_plan_know_it(net, methods):
    theirs = make(depth=4)
    dense = mmvitcompress.compress(theirs)
    ours = mmvitcompress.compress(theirs, **methods)
    specs = [METHODS[key](**methods[key]) for key in METHODS if key in methods]
    assert ours.arch == dense.arch.with_reductions(*specs) != dense.arch
    assert ours.macs() < dense.macs()
    assert count_macs(ours, timm_images(theirs, 1)).total == ours.macs()
    # plans are for the dense model
    assert plan_arch(ours.arch, 0.3, 64) == plan_arch(dense.arch, 0.3, 64)


@pytest.mark.parametrize('method', ROWS)
def test_a_plan_is_what_compress_takes(method):
    theirs = make(depth=12)
    if 'vit' not in METHODS[method].families:
        with pytest.raises(ConfigError, match=f'{method} is made for'):
            mmvitcompress.plan(theirs, 0.2, method=method)
        return
    if not ROWS[method].planned:
        with pytest.raises(ConfigError, match='by hand'):
            mmvitcompress.plan(theirs, 0.2, method=method)
        return
    found = mmvitcompress.plan(theirs, 0.2, method=method)
    ours = mmvitcompress.compress(theirs, **found.arguments())
    assert ours.arch.reductions == (found.spec,)
    assert ours.macs() == found.macs
