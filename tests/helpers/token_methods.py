"""Every token method on small nets: one row each, which is all a new one adds.

What can be asked of a method itself (whether its layers must be trained, up
to which block tokens lie in a grid) stands in no row.
"""

from typing import NamedTuple

import pytest
import torch
from torch import nn

from mmvitcompress.arch.swin import SwinArch
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.models import CompressedSwin, CompressedViT
from mmvitcompress.tokens import METHODS


class Row(NamedTuple):
    """One method.

    Attributes:
        reduces: Arguments, each of which reduces tokens of nets of 4 blocks.
        nothing: Arguments that reduce none.
        swin: Whether a Swin takes it, too.
        prefix: How many prefix tokens it needs.
        params: Whether it has parameters.
        chooses: Whether values of tokens decide what becomes of them, so that
            rounding may decide otherwise.
        idle: What of its own has no gradient, being of no consequence.
        dynamic: How an ONNX graph of it takes images; None if there is none.
        planned: Whether the planner can choose its arguments.
        apart: Whether outputs aren't the dense net's where nothing is to be
            reduced, either: means over blocks, or blocks of another kind.
    """

    reduces: tuple[dict, ...]
    nothing: tuple[dict, ...]
    swin: bool = False
    prefix: int = 0
    params: bool = False
    chooses: bool = False
    dynamic: str | None = 'batch'
    idle: tuple[str, ...] = ()
    planned: bool = True
    apart: bool = False


ROWS = {
    'token_merging': Row(
        reduces=(
            dict(layers=(2, 3)),
            dict(layers=(1,), first='vertical', conv=True),
            dict(layers=(2, 4), directions=('symmetric', 'diagonal')),
        ),
        nothing=(dict(layers=()),),
        swin=True,
        params=True,
    ),
    'patch_slimming': Row(
        reduces=(
            dict(base_layer=2, layers=(2, 3), keep_rate=0.7),
            dict(base_layer=1, layers=(2, 4), keep_rate=0.3),
        ),
        nothing=(
            dict(base_layer=2, layers=()),
            dict(base_layer=1, layers=(1, 3), keep_rate=1.0),
        ),
        prefix=1,
        params=True,
        chooses=True,
    ),
    'token_matching': Row(
        reduces=(
            dict(layers=(2, 3), r=3),
            dict(proportional=False),
            dict(r=2, linear_every=2),
        ),
        nothing=(dict(r=0), dict(layers=(), r=3)),
        chooses=True,
    ),
    'token_reorganization': Row(
        reduces=(
            dict(layers=(2, 3), keep_rate=0.6),
            dict(layers=(1, 2, 4), keep_rate=0.3),
        ),
        nothing=(dict(layers=()), dict(layers=(2, 3), keep_rate=1.0)),
        chooses=True,
    ),
    'token_energy': Row(
        reduces=(
            dict(layers=(2, 3), keep_rate=0.6),
            dict(layers=(1, 2, 4), rates=(0.9, 0.5, 0.4), attention=False),
        ),
        nothing=(dict(layers=()), dict(layers=(2, 3), keep_rate=1.0)),
        chooses=True,
    ),
    'token_evolution': Row(
        reduces=(
            dict(first=2, keep_rate=0.4),
            dict(first=2, keep_rate=0.3, stages=(2, 4), tradeoff=0.7),
        ),
        nothing=(dict(first=2, keep_rate=1.0),),
        chooses=True,
    ),
    'token_rates': Row(
        reduces=(
            dict(prune=(1, 0.8, 0.7, 0.5), merge=(1, 0.6, 0.6, 0.2)),
            dict(keep_rate=0.7),
            dict(prune=(1, 0.5, 0.6, 0.3), merge=(1, 1, 1, 0.3)),
        ),
        nothing=(
            dict(keep_rate=1.0),
            dict(prune=(1, 1, 1, 1), merge=(1, 1, 1, 1)),
        ),
        chooses=True,
        # no attention follows, and MACs go by the smallest rate
        idle=('rates.4_prune.logits', 'rates.4_merge.logits'),
    ),
    'token_sparsification': Row(
        reduces=(
            dict(layers=(2, 3), keep_rate=0.6),
            dict(layers=(2, 3, 4), keep_rate=0.3),
        ),
        nothing=(dict(layers=()), dict(layers=(2, 3), keep_rate=1.0)),
        params=True,
        chooses=True,
    ),
    'semantic_tokens': Row(
        reduces=(
            dict(layers=(1,), length=4, samples=2, window=3, overlap=1),
            dict(layers=(1, 3), length=2, samples=1, window=2, overlap=0),
            dict(layers=(2,), length=3, window=5),
        ),
        nothing=(dict(layers=()),),
        swin=True,
        params=True,
        apart=True,
    ),
    'token_halting': Row(
        reduces=(
            dict(first=2, rates=(1, 1, 0.6, 0.3), scale=2.0, shift=-1.0),
            dict(rates=(1, 0.8, 0.5, 0.4)),
            dict(scale=2.0, shift=-1.0),
        ),
        nothing=(dict(shift=-1e9), dict(shift=-1e9, rates=(1, 1, 1, 1))),
        chooses=True,
        apart=True,
    ),
}
FOR_VITS = [key for key in METHODS if 'vit' in METHODS[key].families]
FIRST = {key: {key: row.reduces[0]} for key, row in ROWS.items()}
"""Each method by itself, as arguments of backbones, arches and compress."""

WHOLE = [key for key in METHODS if key in ROWS and not ROWS[key].swin]
LAST = {
    key: METHODS[key](**ROWS[key].reduces[0]).ungridded_after(4)
    for key in WHOLE
}
"""The last blocks of those whose tokens lie in a grid."""

PAIRS = {
    f'token_merging+{key}': dict(token_merging=dict(layers=(last,)))
    | FIRST[key]
    for key, last in LAST.items()
}
"""Merges of neighbours, as late as those leave them a grid."""

SINGLE = FIRST | PAIRS
"""Every method once, alone and with merges of neighbours."""

CASES = (
    {'dense': {}}
    | {
        key if i == 0 else f'{key}{i}': {key: arguments}
        for key, row in ROWS.items()
        for i, arguments in enumerate(row.reduces)
    }
    | PAIRS
)

# -- nets -------------------------------------------------------------------

VIT = dict(
    embed_dim=24,
    depth=4,
    num_heads=3,
    patch_size=4,
    img_size=(20, 28),
    qk_dims=(8, 4, 6, 2),  # as CDCP leaves them
    v_dims=(8, 6, 2, 4),
    mlp_dims=(48, 24, 8, 32),
    layer_scale=True,
)
SWIN = dict(
    embed_dim=8,
    depths=(1, 1, 4, 1),
    num_heads=(1, 1, 2, 2),
    window_size=3,
    img_size=(80, 112),
    qk_dims=(8, 16, 16, 8, 12, 4, 32),
    v_dims=(8, 16, 4, 8, 16, 12, 32),
    mlp_dims=(16, 16, 32, 64, 24, 40, 32),
)
NETS = {
    'no_prefix': dict(VIT, class_token=False),
    'vit': VIT,
    'distilled': dict(VIT, dist_token=True, stem='conv', stem_dim=6),
    'registers': dict(
        VIT,
        reg_tokens=4,
        pos_embed='patch',
        skip_scale=2.0,
        qk_norm=True,
        act='quick_gelu',
        patch_bias=False,
        pre_norm=True,
    ),
    'rotary': dict(VIT, reg_tokens=2, pos_embed='none', rope={}),
    'gated': dict(
        VIT,
        rope=dict(coords='index', reference=4),
        mlp='swiglu',
        mlp_norm=True,
        attn_norm=True,
    ),
    'windows': dict(VIT, window_size=3, global_blocks=(3,)),
    'swin': SWIN,
}
PREFIX = dict(no_prefix=0, vit=1, distilled=2, registers=5, windows=1, swin=0)
PREFIX |= dict(rotary=3, gated=1)


class Given(nn.Module):
    """Returns what it was made with, in place of a part of a net."""

    def __init__(self, tokens):
        super().__init__()
        self.tokens = tokens

    def forward(self, *_):
        return self.tokens


def takes(net: str, methods: dict) -> bool:
    """Whether a net of ``NETS`` takes these methods."""
    rows = [ROWS[key] for key in methods]
    family = 'swin' if net == 'swin' else 'vit'
    if any(family not in METHODS[key].families for key in methods):
        return False
    if net in ('swin', 'windows'):
        return all(row.swin for row in rows)
    return PREFIX[net] >= max((row.prefix for row in rows), default=0)


def runs(cases: dict, nets=tuple(NETS)) -> pytest.MarkDecorator:
    """Parametrise by every net of ``nets`` and what of ``cases`` it takes."""
    return pytest.mark.parametrize(
        ('net', 'methods'),
        [
            pytest.param(net, methods, id=f'{net}-{name}')
            for name, methods in cases.items()
            for net in nets
            if takes(net, methods)
        ],
    )


def arch(net: str, methods: dict):
    """The arch of a net with token methods."""
    return (SwinArch if net == 'swin' else ViTArch)(**NETS[net], **methods)


def build(net: str, methods: dict, std: float | None = 0.2, **kwargs):
    """A backbone in double precision, in evaluation mode.

    Args:
        net: One of ``NETS``.
        methods: Arguments of token methods by their keys.
        std: Of its random parameters; None leaves those as they start.
            Defaults to 0.2.
        **kwargs: Further arguments of the backbone.
    """
    torch.manual_seed(0)
    kind = CompressedSwin if net == 'swin' else CompressedViT
    model = kind(NETS[net], **methods, **kwargs)
    for parameter in model.parameters() if std else ():
        # starts leave biases at 0 and scales at one value: slips would hide
        nn.init.normal_(parameter, std=std)
    return model.double().eval()


def sizes(net: str) -> list[tuple[int, int]]:
    """Images: the arch's, padded to patches, long, of one patch.

    The grids that are merged are 5×7, 4×11, 1×7, 6×1 and 1×1.
    """
    grids = ((5, 7), (4, 11), (1, 7), (6, 1), (1, 1))
    step = 16 if net == 'swin' else 4  # pixels to a token where methods act
    cuts = (0, 3, 0, 1, 0)
    return [
        tuple(step * side - cut * (side > 1) for side in grid)
        for grid, cut in zip(grids, cuts)
    ]


def images(size: tuple[int, int], batch: int = 2) -> torch.Tensor:
    """Random images (B, 3, H, W)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(
        batch, 3, *size, generator=generator, dtype=torch.float64
    )


def blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of a backbone, in their order."""
    stages = getattr(model, 'layers', [model])
    return [block for stage in stages for block in stage.blocks]


def run(model: nn.Module, x: torch.Tensor) -> tuple:
    """Outputs without gradients."""
    with torch.no_grad():
        return model(x)


def assert_near(found, expected, bound: float = 1e-12) -> None:
    """Maps are equal, relative to the largest value of each."""
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= bound * b.abs().max()
