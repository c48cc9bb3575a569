"""Which patches share a token, whichever way tokens became fewer."""

from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from matplotlib.collections import LineCollection
from numpy import ndarray
from torch import Tensor

from mmvitcompress.arch.base import dense
from mmvitcompress.arch.swin import MERGE_STAGE
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.swin import Swin
from mmvitcompress.models.vit import ViT
from mmvitcompress.visualization import base, style
from mmvitcompress.visualization.loading import attended_tokens, token_map


class MergeStage(NamedTuple):
    """What the tokens are from one block to another.

    Attributes:
        title: Where it begins, such as ``from block 5`` or, of a Swin,
            ``from block 5 of stage 3``.
        tokens: For each image (H, W), which token each patch belongs to,
            counted from 0 in raster order; -1 for patches that have left.
    """

    title: str
    tokens: list[ndarray]


def merge_stages(
    backbone: ViT | Swin, images: Iterable[Tensor]
) -> list[MergeStage]:
    """The stages that reductions of tokens divide a model into.

    Args:
        backbone: Any of ours; of a Swin, stage 3 is described.
        images: (3, H, W) each, normalised.

    Raises:
        ConfigError: If every patch remains one token.
    """
    runs = [
        [
            in_order(token_map(*attended)[0].cpu().numpy())
            for attended in attended_tokens(backbone, image[None])
        ]
        for image in images
    ]
    swin = isinstance(backbone, Swin)
    where = f' of stage {MERGE_STAGE + 1}' if swin else ''
    patches = [np.arange(run[0].size).reshape(run[0].shape) for run in runs]
    start = f'start{where}' if swin else 'patches'
    stages = [MergeStage(start, patches)]
    for block, maps in enumerate(zip(*runs), 1):
        if not all(map(np.array_equal, maps, stages[-1].tokens)):
            stages.append(MergeStage(f'from block {block}{where}', [*maps]))
    if len(stages) == 1:
        raise ConfigError(
            'the model merges no tokens, so that every patch is one; give a '
            'config or checkpoint with a token method'
        )
    return stages


def in_order(tokens: ndarray) -> ndarray:
    """Tokens (H, W), counted anew in the raster order of their first patch;
    -1 stays."""
    names, first, place = np.unique(
        tokens, return_index=True, return_inverse=True
    )
    first[names < 0] = -1
    ranks = first.argsort().argsort() - np.count_nonzero(names < 0)
    return ranks[place].reshape(tokens.shape)


def borders(tokens: ndarray) -> ndarray:
    """Edges between patches of different tokens (H, W), and around all: line
    segments (n, 2, 2), two ends of (x, y) each, in patches."""
    framed = np.pad(tokens, 1, constant_values=-1)
    i, j = np.nonzero(framed[1:-1, :-1] != framed[1:-1, 1:])
    upright = np.stack([j, i, j, i + 1], 1)
    i, j = np.nonzero(framed[:-1, 1:-1] != framed[1:, 1:-1])
    level = np.stack([j, i, j + 1, i], 1)
    return np.concatenate([upright, level]).reshape(-1, 2, 2)


def links(tokens: ndarray) -> ndarray:
    """Lines (n, 2, 2) between the centres of patches of one token that touch
    at a corner only."""
    a, b = tokens[:-1, :-1], tokens[:-1, 1:]
    c, d = tokens[1:, :-1], tokens[1:, 1:]
    i, j = np.nonzero((a == d) & (a >= 0) & (a != b) & (a != c))
    falling = np.stack([j, i, j + 1, i + 1], 1)
    i, j = np.nonzero((b == c) & (b >= 0) & (b != a) & (b != d))
    rising = np.stack([j + 1, i, j, i + 1], 1)
    return np.concatenate([falling, rising]).reshape(-1, 2, 2) + 0.5


def scattered(tokens: ndarray) -> bool:
    """Whether a token holds patches that don't hang together."""
    every, front, back = np.s_[:], np.s_[:-1], np.s_[1:]
    neighbours = (
        ((every, front), (every, back)),
        ((front, every), (back, every)),
        ((front, front), (back, back)),
        ((front, back), (back, front)),
    )
    # patches take the lowest place among those that they hang together with
    parts = np.arange(tokens.size).reshape(tokens.shape)
    before = None
    while not np.array_equal(parts, before):
        before = parts.copy()
        for a, b in neighbours:
            lowest = np.minimum(parts[a], parts[b])
            same = tokens[a] == tokens[b]
            parts[a] = np.where(same, lowest, parts[a])
            parts[b] = np.where(same, lowest, parts[b])
    there = tokens >= 0
    return len(np.unique(parts[there])) > len(np.unique(tokens[there]))


def mean_colours(picture: ndarray, tokens: ndarray, stride: int) -> ndarray:
    """A picture (H, W, 3) in which each token has its mean colour."""
    height, width = picture.shape[:2]
    labels = tokens.repeat(stride, 0).repeat(stride, 1)[:height, :width] + 1
    sizes = np.bincount(labels.ravel()).clip(1)
    means = [
        np.bincount(labels.ravel(), picture[..., channel].ravel()) / sizes
        for channel in range(3)
    ]
    painted = np.stack(means, 1).round().astype(np.uint8)[labels]
    return np.where(labels[..., None] > 0, painted, picture)


def draw_merges(
    pictures: Sequence[ndarray],
    stages: Sequence[MergeStage],
    patch: int,
    rows: Sequence[int] | None = None,
) -> style.Figure:
    """Draw the borders of tokens over pictures: a column for each stage.

    Args:
        pictures: RGB (H, W, 3), uint8.
        stages: Of these pictures, from :func:`merge_stages`.
        patch: Edge of a patch of these stages, in pixels.
        rows: Which of the pictures. Defaults to all.
    """

    def paint(panel, row):
        for axis, stage in zip(panel, stages):
            _draw_tokens(axis, pictures[row], stage.tokens[row], patch)

    def headings(row):
        first, *others = (stage.tokens[row].max() + 1 for stage in stages)
        counts = [first, *(f'{count} of {first}' for count in others)]
        return [f'{s.title}\n{c} tokens' for s, c in zip(stages, counts)]

    title = 'Patches that share a token'
    return style.draw_rows(pictures, rows, headings, paint, title, width=2.6)


def _draw_tokens(axis, picture: ndarray, tokens: ndarray, patch: int) -> None:
    height, width = picture.shape[:2]
    if scattered(tokens):
        picture = mean_colours(picture, tokens, patch)
    style.show_photo(axis, picture)
    if (tokens < 0).any():
        style.cover(axis, tokens < 0, (height, width), patch)
    thin = 0.5 if max(tokens.shape) > 40 else 1.0
    # a dark line under a light one is seen on any picture
    for colour, thick in (('black', 2.2), ('white', 1.0)):
        lines = borders(tokens) * patch
        axis.add_collection(
            LineCollection(lines, colors=colour, linewidths=thick * thin)
        )
    for (x0, y0), (x1, y1) in links(tokens) * patch:
        axis.plot(
            *([x0, x1], [y0, y1]),
            color=style.ORANGE,
            linewidth=1.5 * thin,
            marker='o',
            markersize=3 * thin,
        )
    axis.set(xlim=(0, width), ylim=(height, 0))


class Merges(base.ModelKind):
    """Which patches share a token, stage by stage."""

    about = 'which patches share a token, stage by stage'
    caption = (
        'Lines are the borders of tokens; patches inside of the same borders '
        'share one token. Where a token holds patches that touch at a corner '
        'only, as after a diagonal merge, dots and a line join them; where '
        'its patches lie apart, all of them have their mean colour. Patches '
        'that have left are covered.'
    )
    arguments: ClassVar = {
        **base.ModelKind.arguments,
        'checkpoint': dict(nargs='?', help='its checkpoint'),
    }
    draw = staticmethod(draw_merges)

    def shows(self, backbone) -> bool:
        """Tell whether tokens become fewer."""
        arch = backbone.arch
        return arch.counts() != dense(arch).counts()

    def compute(self, models) -> tuple:
        """Find the stages of the one model."""
        ((backbone, images),) = models.values()
        stage = MERGE_STAGE if isinstance(backbone, Swin) else 0
        patch = backbone.arch.patch_size << stage
        return merge_stages(backbone, images), patch
