"""The same pictures while a model trains."""

from collections.abc import Callable, Sequence

import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner
from numpy import ndarray
from torch import Tensor, nn

from mmvitcompress.channels import (
    column_norms,
    find_compactors,
    kept_channels,
)
from mmvitcompress.engine.wrappers import unwrapped
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.swin import Swin
from mmvitcompress.registry import HOOKS
from mmvitcompress.visualization.attention import (
    attends_globally,
    class_attention,
    draw_attention,
)
from mmvitcompress.visualization.channel_pictures import draw_channels
from mmvitcompress.visualization.channels import widths_of
from mmvitcompress.visualization.features import (
    colour_maps,
    draw_features,
    restored_maps,
)
from mmvitcompress.visualization.life import draw_life, predict_lives
from mmvitcompress.visualization.loading import to_pictures
from mmvitcompress.visualization.merges import draw_merges
from mmvitcompress.visualization.running import backbone_of
from mmvitcompress.visualization.style import Figure, to_array

Shows = Callable[[nn.Module], bool]
Draw = Callable[[nn.Module, Tensor, list[ndarray]], Figure]


def _draw_merges(backbone, images, pictures) -> Figure:
    return draw_merges(pictures, backbone.arch)


def _draw_life(backbone, images, pictures) -> Figure:
    lives = predict_lives(backbone, images)
    return draw_life(pictures, lives, backbone.arch.patch_size)


def _draw_channels(backbone, images, pictures) -> Figure:
    compactors = find_compactors(backbone)
    widths = widths_of(kept_channels(compactors), column_norms(compactors))
    return draw_channels({'masks of this run': widths})


def _draw_attention(backbone, images, pictures) -> Figure:
    maps = {'attention': class_attention(backbone, images)}
    return draw_attention(pictures, maps, backbone.arch.patch_size)


def _draw_features(backbone, images, pictures) -> Figure:
    colours = colour_maps({'': restored_maps(backbone, images)})
    unit = 'stage' if isinstance(backbone, Swin) else 'block'
    return draw_features(pictures, colours, unit)


DRAWN: dict[str, tuple[Shows, Draw]] = {
    'merges': (lambda b: b.arch.token_merging is not None, _draw_merges),
    'life': (lambda b: getattr(b, 'patch_slimming', None), _draw_life),
    'channels': (find_compactors, _draw_channels),
    'attention': (attends_globally, _draw_attention),
    'features': (lambda b: True, _draw_features),
}
"""For each kind whether a backbone has something to show, and how."""


@HOOKS.register_module()
class CompressionVisualizationHook(Hook):
    """Writes pictures of the compression to the Visualizer at validation.

    They appear where the config's ``visualizer`` sends them: TensorBoard,
    WandB, or files under ``vis_data/vis_image``, as
    ``compression_merges`` and so on, each validation as one step. The images
    are the first of the first validation batch, so that the same ones are
    seen each time. On several processes the first one draws.

    Args:
        kinds: What to draw: 'merges', 'life', 'channels', 'attention',
            'features'. Defaults to all that the model has something to show
            for: merges if tokens are merged, life if patches leave, channels
            if there are compactors, attention in plain ViTs, and features.
        images: How many images to draw on. Defaults to 4.
        interval: Every how many validations. Defaults to 1.

    Raises:
        ConfigError: If an argument is out of range; before the first
            validation, if the model has nothing of a kind that was asked for.
    """

    def __init__(
        self,
        kinds: Sequence[str] | None = None,
        images: int = 4,
        interval: int = 1,
    ):
        for name, value in (('images', images), ('interval', interval)):
            if type(value) is not int or value < 1:
                raise ConfigError(
                    f'{name} must be a whole number of at least 1, but got '
                    f'{value!r}'
                )
        unknown = sorted(set(kinds or ()) - set(DRAWN))
        if unknown:
            raise ConfigError(
                f'kinds must be of {", ".join(DRAWN)}, but got {unknown[0]!r}'
            )
        self.kinds = kinds
        self.images = images
        self.interval = interval
        self._validations = 0

    def before_val(self, runner: Runner) -> None:
        """Settle what to draw."""
        backbone = backbone_of(unwrapped(runner.model))
        shown = [kind for kind, (shows, _) in DRAWN.items() if shows(backbone)]
        missing = sorted(set(self.kinds or ()) - set(shown))
        if missing:
            raise ConfigError(
                f'the model has nothing to show of {missing[0]!r}; kinds can '
                f'be of {", ".join(shown)}'
            )
        self._shown = list(self.kinds or shown)

    def before_val_iter(
        self, runner: Runner, batch_idx: int, data_batch=None
    ) -> None:
        """Draw on the first batch, before the model sees it."""
        if batch_idx:
            return
        if self._validations % self.interval == 0:
            self._draw(runner, data_batch)
        self._validations += 1

    @master_only
    @torch.no_grad()
    def _draw(self, runner: Runner, batch) -> None:
        model = unwrapped(runner.model)
        batch = model.data_preprocessor(batch, False)
        images = batch['inputs'] if isinstance(batch, dict) else batch[0]
        images = images[: self.images]
        pictures = to_pictures(images, model, runner.cfg)
        backbone = backbone_of(model)
        for kind in self._shown:
            figure = DRAWN[kind][1](backbone, images, pictures)
            runner.visualizer.add_image(
                f'compression_{kind}', to_array(figure), step=runner.iter
            )
