"""``SwinArch``: the one description of a (compressed) Swin Transformer.

Stages are counted from 1 in texts, as in Swin's paper, and from 0 in code.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from mmvitcompress.arch.base import (
    CONVENTIONS,
    DEEPEST,
    WIDTHS,
    Arch,
    takes_token_methods,
)
from mmvitcompress.arch.checks import check_reach
from mmvitcompress.arch.cost import swin_macs, swin_params
from mmvitcompress.arch.windows import Windows
from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens import TokenSpec
from mmvitcompress.tokens.grids import Grid, merged_grid
from mmvitcompress.tokens.spec import Counts, Reach, count_tokens
from mmvitcompress.utils.checks import (
    check_choice,
    check_extent,
    check_flag,
    check_positive_number,
    pair,
    per_block,
)

MERGE_STAGE = 2
"""Where tokens may be merged: stage 3, counted from 0."""


@takes_token_methods
@dataclass(frozen=True)
class SwinArch(Arch):
    """Shape of a Swin Transformer, compressed or not.

    Widths may be given as one number for all blocks or as one for each block,
    in one flat list over all stages; they are stored as the latter.

    Args:
        embed_dim: Width of the first stage, in channels; it doubles from
            stage to stage.
        depths: Number of blocks of each stage.
        num_heads: Attention heads in the blocks of each stage.
        qk_dims: Width of queries and keys in each head. Defaults to the
            stage's ``head_dims``.
        v_dims: Width of values in each head. Defaults to the stage's
            ``head_dims``.
        mlp_dims: Hidden width of the MLP. Defaults to 4 times the stage's
            width.
        window_size: Edge of a window, in tokens. Windows shrink to a grid
            that is smaller; they aren't shifted then. Defaults to 7.
        patch_size: Edge of a patch, in pixels. Defaults to 4.
        img_size: Image size (H, W) to which costs refer by default, in
            pixels. Defaults to 224.
        in_chans: Image channels. Defaults to 3.
        qkv_bias: Whether the Q, K, V projections have biases. Defaults to
            True.
        norm_eps: Epsilon of all LayerNorms. Defaults to 1e-5.
        pad_first: What happens to grids that windows don't divide: with False
            they are shifted, then padded, as timm does; with True they are
            padded, then shifted, as MMSegmentation and MMDetection do, small
            ones too. Defaults to False.
        reductions: Token methods that are made for Swins; see
            :class:`~mmvitcompress.arch.base.Arch`. Their ``layers`` are
            blocks of stage 3, the only one that may merge, counted from 1
            within it: CAIT's Swin-T merges at (5, 6), its Swin-S at (7, 13),
            which the paper, counting from 0, calls 4 and 5, 6 and 12.

    Raises:
        ConfigError: If a value is out of range, or values don't fit together.
    """

    family: ClassVar[str] = 'swin'
    layers_counted: ClassVar[str] = (
        'blocks of stage 3, the only one that merges, counted from 1 within it'
    )

    embed_dim: int
    depths: Sequence[int]
    num_heads: Sequence[int]
    qk_dims: int | Sequence[int] | None = None
    v_dims: int | Sequence[int] | None = None
    mlp_dims: int | Sequence[int] | None = None
    window_size: int = 7
    patch_size: int = 4
    img_size: int | Grid = 224
    in_chans: int = 3
    qkv_bias: bool = True
    norm_eps: float = 1e-5
    pad_first: bool = False
    reductions: tuple[TokenSpec, ...] = ()

    def __post_init__(self):
        self._make_plain()
        for name in ('embed_dim', 'window_size', 'patch_size', 'in_chans'):
            check_extent(name, getattr(self, name))
        for name in ('qkv_bias', 'pad_first'):
            check_flag(name, getattr(self, name))
        check_positive_number('norm_eps', self.norm_eps)
        self._check_stages()
        for name, value in self._derived().items():
            given = getattr(self, name)
            value = value if given is None else given
            self._set(name, per_block(name, value, self.depth))
        self._set('img_size', pair('img_size', self.img_size))
        self.grid(self.img_size)  # raises if there is no patch
        self._settle_reductions()

    def _derived(self) -> dict:
        heads = tuple(self.head_dims[stage] for stage in self.stages)
        hidden = tuple(4 * self.dims[stage] for stage in self.stages)
        return dict(zip(WIDTHS, (heads, heads, hidden)))

    def _check_stages(self) -> None:
        for name in ('depths', 'num_heads'):
            given = getattr(self, name)
            if not isinstance(given, Iterable) or isinstance(given, str):
                raise ConfigError(
                    f'{name} must name one number for each stage, but got '
                    f'{given!r}'
                )
            for value in given:
                check_extent(name, value, DEEPEST)
            self._set(name, tuple(map(int, given)))
        if not self.depths or len(self.depths) != len(self.num_heads):
            raise ConfigError(
                'depths and num_heads must name one number for each stage, '
                f'but got {self.depths} and {self.num_heads}'
            )
        for dim, heads in zip(self.dims, self.num_heads):
            if dim % heads:
                raise ConfigError(
                    'embed_dim must make the width of each stage a multiple '
                    f'of its heads, but got {dim} channels for {heads} heads'
                )

    def _check_grids(self, specs: Sequence[TokenSpec]) -> None:
        for spec in specs:
            if len(self.depths) <= MERGE_STAGE:
                raise ConfigError(
                    f'{spec.key} takes place in stage 3, but the arch has '
                    f'{len(self.depths)} stages'
                )
            if spec.ungridded_after(self.token_depth) is not None:
                raise ConfigError(
                    f'{spec.key} leaves no grid of tokens, which the windows '
                    'of a Swin need: leave it out, or compress a plain ViT'
                )
        check_reach(specs, self.token_depth)

    # -- shape --------------------------------------------------------------

    num_prefix_tokens: ClassVar[int] = 0
    dist_token: ClassVar[bool] = False

    @property
    def dims(self) -> tuple[int, ...]:
        """Width of each stage, in channels."""
        return tuple(self.embed_dim * 2**i for i in range(len(self.depths)))

    @property
    def num_features(self) -> int:
        """Channels of the last stage's output."""
        return self.dims[-1]

    @property
    def head_dims(self) -> tuple[int, ...]:
        """Head width before pruning in each stage; sets the softmax scale."""
        return tuple(d // h for d, h in zip(self.dims, self.num_heads))

    @property
    def stages(self) -> list[int]:
        """Stage of each block, from 0."""
        return [
            stage
            for stage, depth in enumerate(self.depths)
            for _ in range(depth)
        ]

    @property
    def depth(self) -> int:
        """Number of blocks of all stages."""
        return sum(self.depths)

    def layer(self, stage: int, block: int) -> int:
        """Which of all blocks, from 1, a stage's block (from 0) is."""
        return sum(self.depths[:stage]) + block + 1

    @property
    def token_dim(self) -> int:
        """Width of the tokens that methods reduce, in channels."""
        return self.dims[MERGE_STAGE]

    @property
    def token_depth(self) -> int:
        """Number of blocks that methods choose from; 0 without their stage."""
        return sum(self.depths[MERGE_STAGE : MERGE_STAGE + 1])

    def stage_grids(self, img_size: int | Grid) -> list[Grid]:
        """Unmerged grid of each stage: that of its restored output."""
        grids = [self.grid(img_size)]
        for _ in self.depths[1:]:
            grids.append(merged_grid(grids[-1], 'symmetric'))
        return grids

    def mergeable(self, img_size: int | Grid) -> tuple[Grid, int]:
        """The grid that a first merge meets, and the blocks to choose from."""
        if len(self.depths) <= MERGE_STAGE:
            return (1, 1), 1
        grid = self.stage_grids(img_size)[MERGE_STAGE]
        return grid, self.depths[MERGE_STAGE]

    def windows(self, grid: Grid, shifted: bool) -> Windows:
        """How a block divides a grid; every second block is ``shifted``.

        Along a side that one window covers nothing is shifted, as timm and
        Swin's authors have it. With ``pad_first`` windows stay whole and are
        shifted even so, as weights of MMSegmentation and MMDetection want it.
        """
        size = self.window_size
        if self.pad_first:
            shift = size // 2 if shifted else 0
            return Windows(grid, (size, size), (shift, shift))
        window = tuple(min(size, length) for length in grid)
        shift = tuple(
            size // 2 if shifted and length > size else 0 for length in grid
        )
        return Windows(grid, window, shift)

    def reach(self, stage: int, block: int, grid: Grid) -> Reach | None:
        """What tokens of a block attend to by a token method; None if they
        attend in windows."""
        specs = self.reductions_in(stage)
        found = (spec.reach(block + 1, grid) for spec in specs)
        return next((reach for reach in found if reach is not None), None)

    def has_windows(self, stage: int, block: int) -> bool:
        """Whether a block's tokens attend in windows."""
        return self.reach(stage, block, (1, 1)) is None

    def walk(
        self, img_size: int | Grid | None = None
    ) -> Iterator[tuple[int, int, Counts]]:
        """(stage, block of it, its tokens), both counted from 0, in order."""
        grid = self.grid(self.img_size if img_size is None else img_size)
        for stage, depth in enumerate(self.depths):
            if stage:
                grid = merged_grid(grid, 'symmetric')
            specs = self.reductions_in(stage)
            for block, counts in enumerate(count_tokens(specs, grid, depth)):
                grid = counts.grid
                yield stage, block, counts

    def reductions_in(self, stage: int) -> tuple[TokenSpec, ...]:
        """Token methods of a stage, counted from 0."""
        return self.reductions if stage == MERGE_STAGE else ()

    def counts(self, img_size: int | Grid | None = None) -> list[Counts]:
        """Tokens of each block (without what windows are padded with)."""
        return [counts for *_, counts in self.walk(img_size)]

    # -- cost ---------------------------------------------------------------

    def macs(
        self,
        img_size: int | Grid | None = None,
        num_classes: int = 0,
        stages: int | None = None,
        final_norm: bool = True,
        convention: str = 'fvcore',
    ) -> int:
        """Multiply-accumulates for one image, in closed form.

        What windows are padded with counts, as attention and its projections
        run on whole windows. Arguments are those of
        :meth:`~mmvitcompress.arch.vit.ViTArch.macs`; ``stages`` says how many
        stages run, and a classifier reads the mean token.
        """
        check_choice('convention', convention, CONVENTIONS)
        size = self.img_size if img_size is None else img_size
        count = len(self.depths) if stages is None else stages
        return swin_macs(
            self, size, num_classes, count, final_norm, convention
        )

    def params(
        self,
        num_classes: int = 0,
        stages: int | None = None,
        final_norm: bool = True,
    ) -> int:
        """Parameters, in closed form; arguments as in :meth:`macs`."""
        stages = len(self.depths) if stages is None else stages
        return swin_params(self, num_classes, stages, final_norm)
