"""Feature maps as colours: their first three principal components."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from mmvitcompress.errors import ConfigError
from mmvitcompress.models.layers.windowed import quarter_ends
from mmvitcompress.models.swin import Swin
from mmvitcompress.models.vit import ViT
from mmvitcompress.tokens import restore
from mmvitcompress.visualization.running import run_tokens
from mmvitcompress.visualization.style import (
    Figure,
    head_columns,
    panels,
    show_map,
    show_photo,
)

CAPTION = (
    'Restored feature maps after some blocks: the first three principal '
    'components as red, green and blue. Equal colours within a pair of '
    'columns (one block, both models, all images) mean similar features: '
    'each pair has one basis and one scale, fitted to both models together '
    'after subtracting the mean feature of each. Colours of different '
    'blocks have nothing to do with each other.'
)


def restored_maps(
    backbone: ViT | Swin, images: Tensor, levels: Sequence[int] | None = None
) -> dict[int, Tensor]:
    """Full feature maps after some blocks (of a ViT) or stages (of a Swin).

    Args:
        backbone: Any of ours; run in evaluation mode.
        images: (B, 3, H, W), normalised.
        levels: Blocks or stages, counted from 0. Defaults to the backbone's
            ``out_indices`` if it has several, else to the ends of the
            quarters of its depth.

    Returns:
        Under each level a map (B, D, H', W').

    Raises:
        ConfigError: If a level is out of range.
    """
    swin = isinstance(backbone, Swin)
    count = len(backbone.layers if swin else backbone.blocks)
    if levels is None:
        levels = getattr(backbone, 'out_indices', ())
        if len(levels) < 2:
            levels = quarter_ends(count)
    levels = sorted(levels)
    if not levels or not 0 <= levels[0] <= levels[-1] < count:
        raise ConfigError(
            f'levels must lie in 0..{count - 1}, but got {list(levels)}'
        )
    outputs = run_tokens(backbone, images, levels)
    prefix = getattr(backbone, 'num_prefix_tokens', 0)
    return {
        level: restore(tokens[:, prefix:], state)
        for level, (tokens, state) in zip(levels, outputs)
    }


def shared_colours(maps: Sequence[Tensor]) -> list[ndarray]:
    """Colours for feature maps, by one PCA for all of them.

    From each map its own mean over images and positions is subtracted, so
    that components tell what varies in an image, not which model it is.

    Args:
        maps: (B, D, H, W) each, with one D ≥ 3; B, H and W may differ.

    Returns:
        RGB (B, H, W, 3) in 0..1 each. The signs of the components are such
        that the largest entry of each is positive; 0 and 1 are the 1st and
        the 99th percentile of each component over all maps.

    Raises:
        ConfigError: If the widths differ.
    """
    widths = [each.shape[1] for each in maps]
    if len(set(widths)) > 1 or widths[0] < 3:
        raise ConfigError(
            'feature maps that share colours must have one width of at least '
            f'3 channels, but got {widths}; compare models of one size'
        )
    maps = [each.double() for each in maps]
    centred = [each - each.mean((0, 2, 3), keepdim=True) for each in maps]
    rows = [each.permute(0, 2, 3, 1).flatten(0, 2) for each in centred]
    # the covariance is D × D, however many positions there are
    covariance = sum(each.T @ each / len(each) for each in rows)
    basis = torch.linalg.eigh(covariance).eigenvectors[:, -3:].flip(1)
    largest = basis.abs().argmax(0, keepdim=True)
    basis = basis * basis.gather(0, largest).sign()
    colours = [torch.einsum('bdhw,dc->bhwc', each, basis) for each in centred]
    every = torch.cat([each.flatten(0, 2) for each in colours])
    low, high = (
        torch.from_numpy(np.percentile(every.cpu().numpy(), q, axis=0))
        for q in (1, 99)
    )
    span = (high - low).clamp_min(torch.finfo(torch.float64).tiny)
    return [
        ((each.cpu() - low) / span).clamp(0, 1).numpy() for each in colours
    ]


def colour_maps(
    maps: Mapping[str, Mapping[int, Tensor]],
) -> dict[str, dict[int, ndarray]]:
    """Colours of some models' maps; those of one level share a basis.

    Args:
        maps: For each model its name and what :func:`restored_maps` returns;
            the same levels for all.

    Returns:
        RGB (B, H', W', 3) in 0..1 in place of each map.

    Raises:
        ConfigError: If the levels or the widths of the models differ.
    """
    levels = [list(each) for each in maps.values()]
    if any(each != levels[0] for each in levels):
        raise ConfigError(
            'models must be compared at the same blocks, but got '
            f'{[[level + 1 for level in each] for each in levels]}; name '
            'some that all of them have'
        )
    result = {name: {} for name in maps}
    for level in levels[0]:
        colours = shared_colours([each[level] for each in maps.values()])
        for name, colour in zip(maps, colours):
            result[name][level] = colour
    return result


def draw_features(
    pictures: Sequence[ndarray],
    colours: Mapping[str, Mapping[int, ndarray]],
    unit: str = 'block',
    title: str = '',
) -> Figure:
    """Draw the maps of models beside each other, level by level.

    Args:
        pictures: RGB (H, W, 3) of one size, uint8.
        colours: Of these pictures, from :func:`colour_maps`.
        unit: What levels are: 'block' or 'stage'. Defaults to 'block'.
        title: Title. Defaults to one that says what is seen.
    """
    size = pictures[0].shape[:2]
    levels = list(next(iter(colours.values())))
    count = 1 + len(levels) * len(colours)
    figure, axes = panels(len(pictures), count, size[0] / size[1], 1.7)
    headings = ['image']
    for level in levels:
        for name, models_colours in colours.items():
            column = axes[:, len(headings)]
            headings.append(f'{unit} {level + 1}\n{name}')
            for axis, colour in zip(column, models_colours[level]):
                # sides that patches don't divide reach a little beyond
                patch = -(-size[0] // colour.shape[0])
                show_map(axis, colour, (*size, patch))
    for axis, picture in zip(axes[:, 0], pictures):
        show_photo(axis, picture)
    head_columns(axes, headings)
    what = 'Restored features: three principal components as RGB'
    figure.suptitle(title or f'{what}, one basis for each {unit}', fontsize=11)
    return figure
