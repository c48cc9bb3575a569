"""Necks that bring reduced tokens back to full feature maps."""

from collections.abc import Sequence
from typing import Literal

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmvitcompress.errors import ConfigError
from mmvitcompress.registry import MODELS
from mmvitcompress.tokens import TokenMap, TokenState, restore, restore_grid
from mmvitcompress.tokens.restore import RestoreMode


@MODELS.register_module()
class UnmergeUpsample(BaseModule):
    """Restores every output of a backbone with ``restore=False``.

    Args:
        mode: How merges are undone: 'nearest' hands each token back to all
            positions that it covers, 'bilinear' interpolates. Defaults to
            'nearest'.
        fill: What stands where slimmed patches were: 'structured' gives each
            the feature of the block after which it left, 'mask_token' a
            learned token, one for each level. Defaults to 'structured'.
        in_channels: Channels of each level; needed for 'mask_token' only.
        init_cfg: Must be None; there is nothing to load.

    Raises:
        ConfigError: If an argument is out of range.
    """

    def __init__(
        self,
        mode: RestoreMode = 'nearest',
        fill: Literal['structured', 'mask_token'] = 'structured',
        in_channels: Sequence[int] | None = None,
        init_cfg: None = None,
    ):
        super().__init__()
        if fill == 'mask_token' and in_channels is None:
            raise ConfigError("fill='mask_token' needs in_channels")
        self.mode = mode
        self.fill = fill
        self.mask_tokens = (
            nn.ParameterList(
                nn.Parameter(torch.zeros(channels)) for channels in in_channels
            )
            if fill == 'mask_token'
            else None
        )

    def forward(self, inputs: Sequence[TokenMap]) -> tuple[Tensor, ...]:
        """One :class:`~mmvitcompress.tokens.TokenMap` for each level → maps
        (B, C, H, W) on the full grid."""
        if not all(isinstance(level, TokenMap) for level in inputs):
            raise ConfigError(
                'UnmergeUpsample restores what a backbone with restore=False '
                'returns, but got maps: set model.backbone.restore=False or '
                'leave this neck out'
            )
        fills = self.mask_tokens or [None] * len(inputs)
        if len(fills) != len(inputs):
            raise ConfigError(
                f'in_channels must name one width for each of {len(inputs)} '
                f'levels, but got {len(fills)}'
            )
        return tuple(
            restore(level.tokens, level.state, self.mode, fill)
            for level, fill in zip(inputs, fills)
        )


def merged_map(
    level: TokenMap | Tensor, embed_dim: int
) -> tuple[Tensor, TokenState]:
    """What a backbone returns as a map (B, C, h, w), and how that is merged.

    Args:
        level: A token map, or a map that is whole.
        embed_dim: The C that the neck expects.

    Raises:
        ConfigError: If the backbone has another width.
    """
    if isinstance(level, TokenMap):
        x, state = restore_grid(*level)
    else:
        x, state = level, TokenState.start(tuple(level.shape[-2:]))
    if x.shape[1] != embed_dim:
        raise ConfigError(
            f'embed_dim must be the width of the backbone, {x.shape[1]}, but '
            f'got {embed_dim}'
        )
    return x, state
