"""The plain-ViT pyramid, built on merged maps and restored last.

Giving a token back to the positions that it covers is indexing, so whatever
works on one position at a time gives the same numbers before as after it. Of
the ×4 ×2 ×1 ×½ pyramid that is all but the batch norm's statistics, which are
weighted, and the pooling, which undoes a part of the restoring instead.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmvitcompress.errors import ConfigError, DataError
from mmvitcompress.models.fast.transposed_conv import (
    upsample_map,
    upsample_tokens,
)
from mmvitcompress.models.fast.winograd import reorders
from mmvitcompress.models.layers.hooked import is_bare, works_on_tokens
from mmvitcompress.models.necks.upsample import merged_map
from mmvitcompress.registry import MODELS
from mmvitcompress.tokens import TokenMap, TokenState
from mmvitcompress.tokens.grids import Grid
from mmvitcompress.utils.batch_norm import batch_norm, uses_batch_statistics
from mmvitcompress.utils.checks import check_extent, check_typed

RESCALES = (4, 2, 1, 0.5, 0.25)


@MODELS.register_module()
class UnmergePyramid(BaseModule):
    """Feature pyramid of a plain ViT from maps that are not restored yet.

    Equal to ``UnmergeUpsample(mode='nearest')`` followed by mmseg's
    ``Feature2Pyramid``, whose arguments and parameter names it shares:
    outputs, gradients and running statistics, in training and evaluation. Its
    convolutions work on the merged tokens, of which there are two or four
    times fewer.

    What does not fit this is restored first: diagonal merges, tokens that were
    matched or fused, and maps before a norm that is no batch norm (such as GN,
    which looks at all positions) or before parts that carry hooks. Dropped
    patches return to their places before anything else, with the feature that
    they left with.

    Args:
        embed_dim: Channels C of all levels.
        rescales: By what each level is scaled, in the order of the inputs:
            of 4, 2, 1, 0.5 and 0.25, none of them twice. Defaults to
            (4, 2, 1, 0.5): strides 4, 8, 16 and 32 of a patch size of 16.
        norm_cfg: Norm between the two transposed convolutions of ×4. Defaults
            to SyncBN.
        init_cfg: Must be None; there is nothing to load.

    Raises:
        ConfigError: If an argument is out of range.
    """

    def __init__(
        self,
        embed_dim: int,
        rescales: Sequence[float] = (4, 2, 1, 0.5),
        norm_cfg: dict | None = None,
        init_cfg: None = None,
    ):
        super().__init__()
        check_extent('embed_dim', embed_dim)
        check_typed('norm_cfg', norm_cfg)
        rescales = tuple(rescales)
        if not set(rescales) <= set(RESCALES) or (
            len(set(rescales)) != len(rescales)
        ):
            raise ConfigError(
                f'rescales must be of {", ".join(map(str, RESCALES))}, none '
                f'of them twice, but got {rescales}'
            )
        self.embed_dim = embed_dim
        self.rescales = rescales
        if 4 in rescales:
            self.upsample_4x = nn.Sequential(
                nn.ConvTranspose2d(embed_dim, embed_dim, 2, 2),
                _make_norm(norm_cfg, embed_dim),
                nn.GELU(),
                nn.ConvTranspose2d(embed_dim, embed_dim, 2, 2),
            )
        if 2 in rescales:
            self.upsample_2x = nn.Sequential(
                nn.ConvTranspose2d(embed_dim, embed_dim, 2, 2)
            )

    def forward(
        self,
        inputs: Sequence[TokenMap | Tensor],
        laterals: Sequence[nn.Module] | None = None,
    ) -> tuple[Tensor, ...]:
        """One level for each of ``rescales`` → maps (B, C, H·r, W·r).

        Args:
            inputs: :class:`~mmvitcompress.tokens.TokenMap` or full maps
                (B, C, H, W), which a dense backbone may return as well.
            laterals: For each level an MMCV ``ConvModule`` that is nothing
                but a 1×1 convolution. It is done before restoring, in one
                with the transposed convolution before it. Defaults to none.
        """
        if len(inputs) != len(self.rescales):
            raise ConfigError(
                f'rescales must name one factor for each of {len(inputs)} '
                f'levels, but got {self.rescales}'
            )
        laterals = laterals or [None] * len(inputs)
        return tuple(
            self._level(*merged_map(level, self.embed_dim), rescale, lateral)
            for level, rescale, lateral in zip(inputs, self.rescales, laterals)
        )

    def _level(
        self,
        x: Tensor,
        state: TokenState,
        rescale: float,
        lateral: nn.Module | None,
    ) -> Tensor:
        if lateral is not None and not is_bare(lateral):
            return lateral(self._level(x, state, rescale, None))
        conv = None if lateral is None else lateral.conv
        factors, full = (1, 1), state.full_grid
        for record in state.undo:
            factors = record.factors()
        if rescale < 1:
            x = pool(x, factors, full, round(1 / rescale))
            return x if conv is None else conv(x)
        tokens = x.permute(0, 2, 3, 1)  # (B, h, w, C)
        if rescale == 1:
            if conv is not None:
                tokens = F.linear(tokens, conv.weight.flatten(1), conv.bias)
            return spread(tokens, factors, full)
        steps = self.upsample_2x if rescale == 2 else self.upsample_4x
        if not works_on_tokens(steps):
            x = steps(spread(tokens, factors, full))
            return x if conv is None else conv(x)
        *first, last = steps
        if factors == (1, 1) and reorders(x):
            if first:
                transposed, norm, activation = first
                x = activation(norm(upsample_map(x, transposed)))
            return upsample_map(x, last, conv)
        if first:
            transposed, norm, activation = first
            tokens = upsample_tokens(tokens, transposed)  # (B, h, w, 2, 2, C)
            tokens = activation(_normalise(tokens, norm, factors, full))
        return spread(upsample_tokens(tokens, last, conv), factors, full)


def _normalise(
    x: Tensor, norm: _BatchNorm | nn.Identity, factors: Grid, full: Grid
) -> Tensor:
    """Batch norm of (B, h, w, 2, 2, C), as of the restored map."""
    if isinstance(norm, nn.Identity):
        return x
    if factors != (1, 1) and uses_batch_statistics(norm):
        rows, columns = (
            _cover(x, count, factor, side)
            for count, factor, side in zip(x.shape[1:3], factors, full)
        )
        cover = (rows[:, None] * columns)[..., None, None].expand(x.shape[:5])
        flat = batch_norm(x.flatten(0, 4), norm, cover.flatten())
        return flat.view(x.shape)
    # one image of 2x2 pixels for each token: (B·h·w, C, 2, 2)
    images = norm(x.flatten(0, 2).permute(0, 3, 1, 2))
    return images.permute(0, 2, 3, 1).reshape(x.shape)


def spread(x: Tensor, factors: Grid, full: Grid) -> Tensor:
    """Hand what a token became back to all positions that it covers.

    Args:
        x: (B, h, w, C), or with a pair of dimensions (2, 2) between w and C
            for each time that the map was scaled up.
        factors: How many rows and columns of positions a token covers.
        full: Grid (H, W) before merging; what lies outside is cropped.

    Returns:
        (B, C, H·s, W·s) in channels-last order, s = 2 for each pair; a view
        if there is nothing to do.
    """
    pairs = (x.dim() - 4) // 2
    rest = x.shape[3:]
    # of few dimensions: OpenVINO's Broadcast errs beyond six
    x = x.flatten(3)[:, :, None, :, None]
    x = x.expand(-1, -1, factors[0], -1, factors[1], -1)
    x = x.unflatten(-1, rest)  # (B, h, factor, w, factor, 2, 2, …, C)
    rows = [1, 2, *(5 + 2 * i for i in range(pairs))]
    columns = [3, 4, *(6 + 2 * i for i in range(pairs))]
    x = x.permute(0, *rows, *columns, x.dim() - 1)
    x = x.flatten(2 + len(rows) - 1, -2).flatten(1, len(rows))
    height, width = (side * 2**pairs for side in full)
    return x[:, :height, :width].permute(0, 3, 1, 2)


def pool(x: Tensor, factors: Grid, full: Grid, size: int) -> Tensor:
    """Max-pool the restored map of a merged one, without restoring it.

    A window that lies within one token is that token; what is left of its
    width covers several.

    Args:
        x: Merged map (B, C, h, w).
        factors: How many rows and columns of positions a token covers; powers
            of two.
        full: Grid (H, W) before merging.
        size: Edge and stride of a window; a power of two.

    Returns:
        (B, C, H // size, W // size).

    Raises:
        DataError: If the grid is smaller than a window.
    """
    if full[0] < size or full[1] < size:
        raise DataError(
            f'the image is too small: a pyramid needs {size}×{size} patches '
            f'or more, but got {full[0]}×{full[1]}; enlarge or pad it'
        )
    kernel = [max(1, size // factor) for factor in factors]
    if kernel != [1, 1]:
        x = F.max_pool2d(x, kernel)
    rest = tuple(max(1, factor // size) for factor in factors)
    height, width = (side // size for side in full)
    # windows that reach over the border of the full grid don't count
    return spread(x.permute(0, 2, 3, 1), rest, (height, width))


def _cover(x: Tensor, count: int, factor: int, side: int) -> Tensor:
    """(count), how many of ``side`` positions each token covers."""
    cover = x.new_full((count,), factor, dtype=torch.float32)
    cover[-1] -= count * factor - side
    return cover


def _make_norm(norm_cfg: dict | None, dim: int) -> nn.Module:
    from mmcv.cnn import build_norm_layer

    return build_norm_layer(norm_cfg or dict(type='SyncBN'), dim)[1]
