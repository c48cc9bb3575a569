"""How long each patch is predicted to live, and who is left when."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from numpy import ndarray
from torch import Tensor, nn

from mmvitcompress.errors import ConfigError
from mmvitcompress.models.vit import ViT
from mmvitcompress.tokens import LifePredictor
from mmvitcompress.tokens.life_predictor import scores_to_lives
from mmvitcompress.visualization import base, style
from mmvitcompress.visualization.loading import run_tokens, token_map

NUMBERED = 20
"""Tokens along the longer side up to which their lives stand as numbers."""


class Lives(NamedTuple):
    """Predicted lives, and the patches that they keep.

    Attributes:
        lives: (B, H, W), in layers; that of a token for all its patches.
        kept: Under each slimming layer, counted from 1, the patches left
            after it, (B, H, W) bool.
        counts: Under each how many tokens are left of how many.
        tokens: (B, H, W), the token that each patch belongs to.
        depth: Number L of layers.
    """

    lives: Tensor
    kept: dict[int, Tensor]
    counts: dict[int, tuple[int, int]]
    tokens: Tensor
    depth: int


def find_slimmer(backbone: nn.Module) -> nn.Module | None:
    """The module of a backbone that has a life predictor, if there is one."""
    for module in backbone.modules():
        if isinstance(getattr(module, 'predictor', None), LifePredictor):
            return module
    return None


@torch.no_grad()
def predict_lives(backbone: ViT, images: Tensor) -> Lives:
    """Run a backbone with patch slimming and read off the lives.

    Args:
        backbone: Any of ours with a life predictor; run in evaluation mode.
        images: (B, 3, H, W), normalised.

    Raises:
        ConfigError: If the backbone has no life predictor.
    """
    slimmer = find_slimmer(backbone)
    if slimmer is None:
        raise ConfigError(
            'the model predicts no lives; give a config or checkpoint with '
            'patch_slimming'
        )
    found = []
    handle = slimmer.predictor.register_forward_hook(
        lambda module, inputs, output: found.append(output)
    )
    spec, depth = slimmer.spec, backbone.arch.depth
    try:
        (output,) = run_tokens(backbone, images, [spec.base_layer - 1])
    finally:
        handle.remove()
    scores = found[0]
    tokens, total = token_map(*output), scores.shape[1]

    def spread(values: Tensor) -> Tensor:
        return values.gather(1, tokens.flatten(1)).view(tokens.shape)

    lives = scores_to_lives(scores, *spec.life_moments(total, depth))
    # places by falling score, as the slimmer sorts them
    rank = scores.argsort(dim=1, descending=True, stable=True).argsort(1)
    kept, counts, left = {}, {}, total
    for layer in spec.layers:
        left = spec.kept(left)
        kept[layer] = spread(rank < left)
        counts[layer] = (left, total)
    return Lives(spread(lives), kept, counts, tokens, depth)


def draw_life(
    pictures: Sequence[ndarray],
    lives: Lives | Sequence[Lives],
    patch: int,
    rows: Sequence[int] | None = None,
) -> style.Figure:
    """Draw lives as heat with numbers, and what is left after each layer.

    Args:
        pictures: RGB (H, W, 3), uint8.
        lives: Of these pictures, from :func:`predict_lives`; where they
            differ in size, of each by itself.
        patch: Edge of a patch, in pixels.
        rows: Which of the pictures. Defaults to all.
    """

    def at(row):
        return (lives, row) if isinstance(lives, Lives) else (lives[row], 0)

    def headings(row):
        after = [
            f'after block {layer}\n{left} of {total} left ({left / total:.0%})'
            for layer, (left, total) in at(row)[0].counts.items()
        ]
        return ['image', 'predicted life', *after]

    depth = at(0)[0].depth
    heat = ScalarMappable(Normalize(1, depth), style.HEAT)

    def paint(panel, row):
        (part, place), picture = at(row), pictures[row]
        size = picture.shape
        values = part.lives[place].float().cpu().numpy()
        tokens = part.tokens[place].cpu().numpy()
        style.show_photo(panel[0], picture)
        look = dict(cmap=heat.cmap, norm=heat.norm)
        style.show_map(panel[1], values, size, patch, **look)
        _write_numbers(panel[1], values, tokens, patch, depth)
        for axis, kept in zip(panel[2:], part.kept.values()):
            style.show_photo(axis, picture)
            style.cover(axis, ~kept[place].cpu().numpy(), size, patch)

    title = 'How long patches live (life regression)'
    figure = style.draw_rows(pictures, rows, headings, paint, title, width=2.4)
    figure.colorbar(
        heat,
        ax=figure.axes,
        extend='both',
        shrink=0.9,
        label=f'life, in layers (of {depth})',
    )
    return figure


def _write_numbers(axis, values, tokens, patch: int, depth: int) -> None:
    columns = len(np.unique(tokens[0]))
    longest = max(columns, len(np.unique(tokens[:, 0])))
    if longest > NUMBERED:
        return
    points = 72 * 2.2 / longest * 0.42  # of a cell's width
    for token in np.unique(tokens):
        i, j = np.nonzero(tokens == token)
        life = values[i[0], j[0]]
        axis.text(
            *((j.mean() + 0.5) * patch, (i.mean() + 0.5) * patch),
            f'{life:.0f}' if columns > 10 else f'{life:.1f}',
            ha='center',
            va='center',
            fontsize=min(points, 9),
            color='white' if life < (1 + depth) / 2 else 'black',
            clip_on=True,
        )


class Life(base.ModelKind):
    """Predicted lives, and who is left when."""

    about = 'predicted lives of patches, and who is left after each layer'
    caption = (
        'Heat and numbers: the layers that each patch is predicted to be '
        'worth. The columns after it show what is left after each slimming '
        'layer; patches that have left are covered. One prediction decides '
        'it all.'
    )
    draw = staticmethod(draw_life)

    def shows(self, backbone) -> bool:
        """Tell whether lives are predicted."""
        return find_slimmer(backbone) is not None

    def compute(self, models) -> tuple:
        """Predict the lives of each image's patches."""
        ((backbone, images),) = models.values()
        lives = [predict_lives(backbone, image[None]) for image in images]
        return lives, backbone.arch.patch_size
