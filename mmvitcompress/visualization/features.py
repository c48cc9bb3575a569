"""Feature maps as colours: their first three principal components."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from numpy import ndarray
from torch import Tensor

from mmvitcompress.arch.windows import quarter_ends
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.swin import Swin
from mmvitcompress.models.vit import ViT
from mmvitcompress.tokens import restore
from mmvitcompress.visualization import base, style
from mmvitcompress.visualization.loading import backbone_of, run_tokens


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
        ConfigError: If a level is out of range, or it is none of ours.
    """
    swin = isinstance(backbone_of(backbone), Swin)
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
    return dict(zip(levels, (restore(*output) for output in outputs)))


def shared_colours(models: Sequence[Sequence[Tensor]]) -> list[list[ndarray]]:
    """Colours for the feature maps of models, by one PCA for all of them.

    From each model's maps their mean over images and positions is subtracted,
    so that components tell what varies in images, not which model it is.

    Args:
        models: For each of them its maps (D, H, W), with one D ≥ 3.

    Returns:
        RGB (H, W, 3) in 0..1 in place of each map. The signs of the
        components are such that the largest entry of each is positive; 0 and
        1 are the 1st and the 99th percentile of each component over all maps.

    Raises:
        ConfigError: If the widths differ.
    """
    widths = [maps[0].shape[0] for maps in models]
    if len(set(widths)) > 1 or widths[0] < 3:
        raise ConfigError(
            'feature maps that share colours must have one width of at least '
            f'3 channels, but got {widths}; compare models of one size'
        )
    centred = []  # (positions, D) of all images of a model
    for maps in models:
        rows = torch.cat([each.flatten(1).T.double().cpu() for each in maps])
        centred.append(rows - rows.mean(0))
    # the covariance is D × D, however many positions there are
    covariance = sum(each.T @ each / len(each) for each in centred)
    basis = torch.linalg.eigh(covariance).eigenvectors[:, -3:].flip(1)
    largest = basis.abs().argmax(0, keepdim=True)
    basis = basis * basis.gather(0, largest).sign()
    colours = [each @ basis for each in centred]
    ends = torch.tensor([0.01, 0.99], dtype=torch.float64)
    low, high = torch.cat(colours).quantile(ends, 0)
    span = (high - low).clamp_min(torch.finfo(torch.float64).tiny)
    result = []
    for maps, each in zip(models, colours):
        sizes = [one.shape[1:] for one in maps]
        parts = ((each - low) / span).clamp(0, 1)
        parts = parts.split([size.numel() for size in sizes])
        result.append([p.view(*s, 3).numpy() for p, s in zip(parts, sizes)])
    return result


def colour_maps(
    models: Mapping[str, Mapping[int, Sequence[Tensor]]],
) -> dict[str, dict[int, list[ndarray]]]:
    """Colours of some models' maps; those of one level share a basis.

    Args:
        models: By name and level the map (D, H', W') of each image, as
            :func:`restored_maps` returns them.

    Returns:
        RGB (H', W', 3) in 0..1 in place of each map.

    Raises:
        ConfigError: If the levels or the widths of the models differ.
    """
    levels = [list(each) for each in models.values()]
    if any(each != levels[0] for each in levels):
        raise ConfigError(
            'models must be compared at the same blocks, but got '
            f'{[[level + 1 for level in each] for each in levels]}; name '
            'some that all of them have'
        )
    colours = [
        shared_colours([each[level] for each in models.values()])
        for level in levels[0]
    ]
    return {
        name: dict(zip(levels[0], own))
        for name, own in zip(models, zip(*colours))
    }


def draw_features(
    pictures: Sequence[ndarray],
    colours: Mapping[str, Mapping[int, Sequence[ndarray]]],
    patch: int,
    unit: str = 'block',
    rows: Sequence[int] | None = None,
) -> style.Figure:
    """Draw the maps of models beside each other, level by level.

    Args:
        pictures: RGB (H, W, 3), uint8.
        colours: Of these pictures, from :func:`colour_maps`.
        patch: Edge of a patch, in pixels.
        unit: What levels are: 'block', or 'stage', each of which halves the
            grid. Defaults to 'block'.
        rows: Which of the pictures. Defaults to all.
    """
    columns = [
        (f'{unit} {level + 1}\n{name}', level, maps[level])
        for level in next(iter(colours.values()))
        for name, maps in colours.items()
    ]
    heads = ['image', *(heading for heading, *_ in columns)]

    def paint(panel, row):
        style.show_photo(panel[0], pictures[row])
        for axis, (_, level, maps) in zip(panel[1:], columns):
            stride = patch << level if unit == 'stage' else patch
            style.show_map(axis, maps[row], pictures[row].shape, stride)

    title = (
        'Restored features: three principal components as RGB, one basis for '
        f'each {unit}'
    )
    return style.draw_rows(
        pictures, rows, lambda row: heads, paint, title, width=1.7
    )


class Features(base.ModelKind):
    """Restored feature maps as colours."""

    about = 'restored feature maps as colours, dense beside compressed'
    caption = (
        'Restored feature maps after some blocks: the first three principal '
        'components as red, green and blue. Equal colours within a pair of '
        'columns (one block, both models, all images) mean similar features: '
        'each pair has one basis and one scale, fitted to both models '
        'together after subtracting the mean feature of each. Colours of '
        'different blocks have nothing to do with each other.'
    )
    arguments: ClassVar = {
        **base.ModelKind.arguments,
        **base.DENSE,
        '--blocks': dict(
            **base.NUMBER,
            nargs='+',
            help='blocks (of a Swin: stages), counted from 1',
        ),
    }
    draw = staticmethod(draw_features)

    def shows(self, backbone) -> bool:
        """Any backbone has features."""
        return True

    def compute(self, models, blocks=None) -> tuple:
        """Compute the features after some blocks, counted from 1."""
        levels = blocks and [block - 1 for block in blocks]
        maps = {}
        for name, (backbone, images) in models.items():
            each = [restored_maps(backbone, x[None], levels) for x in images]
            maps[name] = {
                level: [one[level][0] for one in each] for level in each[0]
            }
        unit = 'stage' if isinstance(backbone, Swin) else 'block'
        return colour_maps(maps), backbone.arch.patch_size, unit
