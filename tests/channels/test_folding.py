"""The folded model against the unfolded one with masked columns at zero."""

import numpy as np
import pytest
import torch
from torch import nn

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.channels import (
    Kinds,
    MacBudget,
    SelectionRules,
    attach_compactors,
    column_norms,
    fold,
    kept_channels,
    kept_widths,
    output_shift,
    removable,
    select,
    set_kept_,
    unconverged,
    without,
)
from mmvitcompress.checkpoints.file import write_checkpoint
from mmvitcompress.checkpoints.load import load_strict
from mmvitcompress.errors import ConfigError
from mmvitcompress.models import CompressedViT, ViT

ARCH = dict(
    embed_dim=12,
    depth=3,
    num_heads=3,
    head_dim=8,
    qk_dims=8,
    v_dims=(8, 6, 8),
    mlp_dims=(32, 24, 17),
    patch_size=4,
    img_size=16,
)
VARIANTS = {
    'plain': {},
    'merged': dict(token_merging=dict(layers=(2,))),
    'slimmed': dict(patch_slimming=dict(base_layer=1, layers=(2,))),
    'lvvit': dict(stem='conv', qkv_bias=False, skip_scale=2.0),
    'scaled': dict(layer_scale=True, pos_embed='patch', reg_tokens=2),
    'rotary': dict(rope={}, pos_embed='none', reg_tokens=2),
    'rotary_again': dict(rope={}, qk_dims=(6, 4, 8)),
    'gated': dict(mlp='swiglu'),
    'eva02': dict(
        rope=dict(coords='index', reference=4), mlp='swiglu', mlp_norm=True
    ),
    'inner_norms': dict(attn_norm=True, mlp_norm=True),
    'tower': dict(
        qk_norm=True, act='quick_gelu', pre_norm=True, patch_bias=False
    ),
}
RULES = SelectionRules(min_head_dim=1, min_mlp_dim=2)


def make(dtype=torch.float64, **changes):
    return scrambled(ViT(ViTArch(**{**ARCH, **changes})), dtype)


def scrambled(model, dtype=torch.float64):
    """A model whose compactors are anything but identities."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    compactors = attach_compactors(model)
    for block in compactors:
        for compactor in block:
            nn.init.normal_(compactor.weight, std=0.4)
    return model.to(dtype).eval(), compactors


def images(dtype=torch.float64, size=(16, 16)):
    generator = torch.manual_seed(1)
    return torch.randn(2, 3, *size, generator=generator).to(dtype)


@torch.no_grad()
def features(model, x):
    return model(x)[0][0]


def prune(model, compactors, rules=RULES):
    """Mask half of what may be masked."""
    budget = MacBudget.of(model.arch)
    most = budget.reduction_at(budget.floors(rules))
    target = (budget.reduction() + most) / 2
    selection = select(column_norms(compactors), budget, target, rules)
    set_kept_(compactors, selection.kept)
    return selection


def rebuilt(arch, state_dict, dtype=torch.float64):
    model = ViT(arch).to(dtype)
    load_strict(model, state_dict, 'folded')
    return model.eval()


@pytest.mark.parametrize('variant', VARIANTS)
def test_folded_equals_unfolded_with_columns_at_zero(variant):
    model, compactors = make(**VARIANTS[variant])
    selection = prune(model, compactors)
    arch, state_dict = fold(model)
    folded = rebuilt(arch, state_dict)
    # another size than the position embedding's, too
    for x in (images(), images(size=(20, 12))):
        with without(compactors, selection.kept):
            expected = features(model, x)
        gap = (features(folded, x) - expected).abs().max()
        assert gap <= 1e-10 * expected.abs().max().clamp_min(1)
        assert not torch.allclose(features(model, x), expected, atol=1e-3)
    widths = list(zip(arch.qk_dims, arch.v_dims, arch.mlp_dims))
    assert widths == kept_widths(selection.kept)
    assert sum(map(sum, widths)) < sum(
        map(sum, zip(*(getattr(model.arch, k) for k in
                       ('qk_dims', 'v_dims', 'mlp_dims'))))
    )  # fmt: skip


def test_folding_by_hand():
    """One head of width 2, one hidden layer of width 2, D = 2."""
    arch = ViTArch(
        embed_dim=2,
        depth=1,
        num_heads=1,
        mlp_dims=2,
        patch_size=4,
        img_size=8,
    )
    model = ViT(arch)
    [block] = attach_compactors(model)
    layer = model.blocks[0].mlp
    tensor = torch.tensor
    with torch.no_grad():
        # x·W: W's columns are the rows of torch's weight
        layer.fc1.weight.copy_(tensor([[1.0, 2.0], [3.0, 4.0]]))
        layer.fc1.bias.copy_(tensor([5.0, 6.0]))
        # C = [[7, 10], [20, 30]]: column 0 is (7, 20)
        block.mlp.weight.copy_(tensor([[[7.0, 20.0], [10.0, 30.0]]]))
        layer.fc2.weight.copy_(tensor([[1.0, 2.0], [3.0, 4.0]]))
    block.mlp.kept[0, 1] = False
    narrow, tensors = fold(model)
    assert narrow.mlp_dims == (1,)
    key = 'blocks.0.mlp.'
    # W·C[:, 0] = (1·7 + 3·20, 2·7 + 4·20); b·C[:, 0] = 5·7 + 6·20
    assert tensors[key + 'fc1.weight'].tolist() == [[67, 94]]
    assert tensors[key + 'fc1.bias'].tolist() == [155]
    assert tensors[key + 'fc2.weight'].tolist() == [[1], [3]]


def test_softmax_scale_stays_that_of_the_original_width():
    model, compactors = make()
    prune(model, compactors)
    arch, state_dict = fold(model)
    assert max(arch.qk_dims) < 8
    folded = rebuilt(arch, state_dict)
    assert {b.attn.scale for b in folded.blocks} == {8**-0.5}


def test_folding_leaves_the_model_as_it_was():
    model, compactors = make()
    prune(model, compactors)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fold(model)
    output_shift(model, images())
    after = model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_nothing_masked_folds_to_the_same_widths():
    model, _ = make()
    arch, state_dict = fold(model)
    assert arch == model.arch
    torch.testing.assert_close(
        features(rebuilt(arch, state_dict), images()),
        features(model, images()),
        rtol=0,
        atol=1e-10,
    )
    assert output_shift(model, images()) == 0


def test_backbone_loads_the_folded_checkpoint(tmp_path):
    """Through the file, under the arch that it carries."""
    model, compactors = make(torch.float32, **VARIANTS['merged'])
    selection = prune(model, compactors)
    arch, state_dict = fold(model)
    path = tmp_path / 'pruned.pth'
    write_checkpoint(path, state_dict, arch)
    backbone = CompressedViT(
        checkpoint=str(path),
        out_indices=[2],
        out_type='raw',
        final_norm=True,
    ).eval()
    with torch.no_grad(), without(compactors, selection.kept):
        expected = features(model, images(torch.float32))
        found = backbone(images(torch.float32))[-1]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_blocks_that_were_not_built_keep_their_widths():
    torch.manual_seed(0)
    model = ViT(ViTArch(**ARCH), depth=2)
    [first, _] = attach_compactors(model)
    first.mlp.kept[0, :10] = False
    arch, _ = fold(model)
    assert arch.mlp_dims == (22, 24, 17)


@pytest.mark.parametrize('divisor', [2, 4, 8])
def test_divisor_keeps_more_of_the_masked(divisor):
    model, compactors = make()
    prune(model, compactors)
    narrowest = kept_channels(compactors)
    kept = removable(narrowest, column_norms(compactors), divisor)
    arch, state_dict = fold(model, divisor)
    for name in ('qk_dims', 'v_dims', 'mlp_dims'):
        for new, old in zip(getattr(arch, name), getattr(model.arch, name)):
            assert new % divisor == 0 or new == old
    for block, before in zip(kept, narrowest):
        for mask, mask_before in zip(block, before):
            assert (mask | ~mask_before).all()
            assert mask.sum(1).max() - mask_before.sum(1).max() < divisor
    with without(compactors, kept):
        expected = features(model, images())
    gap = features(rebuilt(arch, state_dict), images()) - expected
    assert gap.abs().max() <= 1e-10 * expected.abs().max()


def test_divisor_keeps_the_highest_scored():
    kept = np.array([[True, False, False, False, True, False, True, False]])
    score = np.array([[9.0, 0.3, 0.7, 0.1, 9.0, 0.2, 9.0, 0.5]])
    block = Kinds(*[np.ones((1, 8), bool)] * 3, kept)
    scores = Kinds(*[score] * 4)
    [block] = removable([block], [scores], divisor=5)
    assert np.flatnonzero(block.mlp).tolist() == [0, 2, 4, 6, 7]


def test_inconsistent_masks_lose_only_what_all_heads_and_q_and_k_have():
    def mask(*rows):
        return np.array(rows, dtype=bool)

    block = Kinds(
        q=mask([1, 0, 0, 1], [0, 0, 1, 1]),
        k=mask([1, 0, 0, 0], [1, 0, 0, 1]),
        v=mask([1, 1, 0, 0], [1, 1, 1, 0]),
        mlp=mask([1, 0, 1]),
    )
    score = np.array([[0.4, 0.1, 0.2, 0.3], [0.4, 0.1, 0.3, 0.2]])
    scores = Kinds(score, score, score, np.ones((1, 3)))
    [result] = removable([block], [scores])
    # both masked: positions 1, 2 in head 0, position 1 in head 1
    expected = [[True, False, True, True]] * 2
    assert result.q.tolist() == result.k.tolist() == expected
    # V: head 0 may lose 2 and 3, head 1 only 3
    assert result.v.tolist() == [[True, True, False, True],
                                 [True, True, True, False]]  # fmt: skip
    assert result.mlp.tolist() == [[True, False, True]]


@pytest.mark.parametrize(
    'levels', [(False, True), (True, False), (False,) * 2]
)
def test_ablations_fold_to_what_they_promised(levels):
    model, compactors = make(v_dims=8)
    rules = SelectionRules(*levels, min_head_dim=1, min_mlp_dim=2)
    selection = prune(model, compactors, rules)
    arch, state_dict = fold(model)
    assert model.arch.macs() - arch.macs() == selection.saved
    kept = removable(selection.kept, column_norms(compactors))
    with without(compactors, kept):
        expected = features(model, images())
    gap = features(rebuilt(arch, state_dict), images()) - expected
    assert gap.abs().max() <= 1e-10 * expected.abs().max()


def test_unconverged_channels_are_counted():
    _, compactors = make()
    compactors[0].q.kept[1, :3] = False
    compactors[2].mlp.kept[0, 4:6] = False
    with torch.no_grad():
        compactors[0].q.weight[1, 0] = 0
        compactors[0].q.weight[1, 1] = 0
        compactors[0].q.weight[1, 1, 5] = 0.9e-5  # small enough
        compactors[2].mlp.weight[0, 4] = 0
        compactors[2].mlp.weight[0, 4, 0] = 1.1e-5  # not quite
    assert unconverged(compactors) == [(1, 0, 0, 0), (0,) * 4, (0, 0, 0, 2)]
    assert unconverged(compactors, bound=1e-4)[2].mlp == 1


def test_output_shift_tells_how_much_is_lost():
    model, compactors = make()
    prune(model, compactors)
    shift = output_shift(model, images())
    expected = features(model, images())
    arch, state_dict = fold(model)
    gap = features(rebuilt(arch, state_dict), images()) - expected
    assert shift == pytest.approx(gap.abs().max() / expected.abs().max())
    assert shift > 0.01
    # once the columns are zero nothing is lost
    with without(compactors, kept_channels(compactors)):
        assert output_shift(model, images()) == 0
        assert sum(map(sum, unconverged(compactors))) == 0
    assert sum(map(sum, unconverged(compactors))) > 0


def test_output_shift_of_a_backbone_with_several_outputs():
    backbone = CompressedViT(ViTArch(**ARCH), out_indices=(0, 2))
    model, compactors = scrambled(backbone)
    prune(model, compactors)
    assert output_shift(model, images()) > 0


def test_a_model_without_compactors_is_refused():
    with pytest.raises(ConfigError, match='no compactors'):
        fold(ViT(ViTArch(**ARCH)))
    with pytest.raises(ConfigError, match='no compactors'):
        output_shift(ViT(ViTArch(**ARCH)), images())
