"""How long each patch is predicted to live, and who is left when."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from mmvitcompress.errors import ConfigError
from mmvitcompress.models.vit import ViT
from mmvitcompress.tokens import TokenState, to_map, unmerge
from mmvitcompress.tokens.life_regression import scores_to_lives
from mmvitcompress.visualization.merges import token_map
from mmvitcompress.visualization.running import run_tokens
from mmvitcompress.visualization.style import (
    HEAT,
    Figure,
    head_columns,
    panels,
    show_map,
    show_photo,
)

CAPTION = (
    'Heat and numbers: the layers that each patch is predicted to be worth. '
    'The columns after it show what is left after each slimming layer; '
    'patches that have left are covered. One prediction decides it all.'
)
GONE = (0.72, 0.77, 0.82, 0.95)
"""Colour and opacity of patches that have left; a tone that photos of
white things don't hide."""
NUMBERED = 20
"""Tokens along the longer side up to which their lives stand as numbers."""


class Lives(NamedTuple):
    """Predicted lives, and the patches that they keep.

    Attributes:
        lives: (B, H, W), in layers; tokens that were merged hand theirs to
            all patches that they cover.
        kept: For each slimming layer (counted from 1) the patches that are
            left after it, (B, H, W) bool.
        counts: For each slimming layer how many tokens are left of how many.
        state: Grid and merges of the tokens that the lives are of.
        depth: Number L of layers.
    """

    lives: Tensor
    kept: dict[int, Tensor]
    counts: dict[int, tuple[int, int]]
    state: TokenState
    depth: int


@torch.no_grad()
def predict_lives(backbone: ViT, images: Tensor) -> Lives:
    """Run a backbone with patch slimming and read off the lives.

    Args:
        backbone: Any of ours with a life predictor; run in evaluation mode.
        images: (B, 3, H, W), normalised.

    Raises:
        ConfigError: If the backbone has no life predictor.
    """
    slimmer = getattr(backbone, 'patch_slimming', None)
    if slimmer is None:
        raise ConfigError(
            'the model predicts no lives; give a config or checkpoint with '
            'patch_slimming'
        )
    scores = []
    handle = slimmer.predictor.register_forward_hook(
        lambda module, inputs, output: scores.append(output)
    )
    try:
        ((_, state),) = run_tokens(backbone, images)
    finally:
        handle.remove()
    depth, spec = backbone.arch.depth, slimmer.spec
    total = scores[0].shape[1]
    lives = scores_to_lives(scores[0], *spec.life_moments(total, depth))
    # places by falling score, as the slimmer sorts them
    rank = scores[0].argsort(dim=1, descending=True, stable=True).argsort(1)
    kept, counts, left = {}, {}, total
    for layer in spec.layers:
        left = spec.kept(left)
        kept[layer] = _spread((rank < left).float(), state) > 0.5
        counts[layer] = (left, total)
    return Lives(_spread(lives, state), kept, counts, state, depth)


def _spread(values: Tensor, state: TokenState) -> Tensor:
    """(B, h·w) in raster order → (B, H, W) on the full grid."""
    return unmerge(to_map(values.unsqueeze(2), state.grid), state)[:, 0]


def draw_life(
    pictures: Sequence[ndarray], lives: Lives, patch: int, title: str = ''
) -> Figure:
    """Draw lives as heat with numbers, and what is left after each layer.

    Args:
        pictures: RGB (H, W, 3) of one size, uint8.
        lives: Of these pictures, from :func:`predict_lives`.
        patch: Edge of a patch, in pixels.
        title: Title. Defaults to one that says what is seen.
    """
    size = pictures[0].shape[:2]
    columns = 2 + len(lives.kept)
    figure, axes = panels(len(pictures), columns, size[0] / size[1], width=2.4)
    scale = dict(cmap=HEAT, vmin=1, vmax=lives.depth)
    tokens = token_map(lives.state._replace(order=None, departed=()))
    for row, picture in enumerate(pictures):
        values = lives.lives[row].float().cpu().numpy()
        show_photo(axes[row][0], picture)
        heat = show_map(axes[row][1], values, (*size, patch), **scale)
        if max(lives.state.grid) <= NUMBERED:
            _write_numbers(axes[row][1], values, tokens, patch, lives)
        for axis, kept in zip(axes[row][2:], lives.kept.values()):
            show_photo(axis, picture)
            gone = np.full((*kept[row].shape, 4), GONE)
            gone[..., 3] *= ~kept[row].cpu().numpy()
            show_map(axis, gone, (*size, patch))
    after = [
        f'after block {layer}\n{left} of {total} left ({left / total:.0%})'
        for layer, (left, total) in lives.counts.items()
    ]
    head_columns(axes, ['image', 'predicted life', *after])
    figure.colorbar(
        heat,
        ax=axes[:, -1],
        extend='both',
        shrink=0.9,
        label=f'life, in layers (of {lives.depth})',
    )
    figure.suptitle(
        title or 'How long patches live (life regression)', fontsize=11
    )
    return figure


def _write_numbers(axis, values, tokens, patch, lives: Lives) -> None:
    rows, columns = tokens.shape
    points = 72 * 2.2 / max(rows, columns) * 0.42  # of a cell's width
    middle = (1 + lives.depth) / 2
    for token in np.unique(tokens):
        i, j = np.nonzero(tokens == token)
        life = values[i[0], j[0]]
        axis.text(
            (j.mean() + 0.5) * patch,
            (i.mean() + 0.5) * patch,
            f'{life:.0f}' if columns > 10 else f'{life:.1f}',
            ha='center',
            va='center',
            fontsize=min(points, 9),
            color='white' if life < middle else 'black',
            clip_on=True,
        )
