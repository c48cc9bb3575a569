"""The same pictures while a model trains."""

from collections.abc import Sequence

import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmvitcompress.engine.wrappers import unwrapped
from mmvitcompress.errors import ConfigError
from mmvitcompress.registry import HOOKS
from mmvitcompress.utils.checks import check_choice, check_positive
from mmvitcompress.visualization import FIGURES
from mmvitcompress.visualization.base import ModelKind, Seen
from mmvitcompress.visualization.loading import backbone_of, to_pictures
from mmvitcompress.visualization.style import to_array

DRAWN = {
    name: kind for name, kind in FIGURES.items() if isinstance(kind, ModelKind)
}
"""The kinds of figures that a single model and images are enough for."""


@HOOKS.register_module()
class CompressionVisualizationHook(Hook):
    """Writes pictures of the compression to the Visualizer at validation.

    They appear where the config's ``visualizer`` sends them: TensorBoard,
    WandB, or files under ``vis_data/vis_image``, as ``compression_merges``
    and so on, each validation as one step. The images are the first of the
    first validation batch. On several processes the first one draws.

    Args:
        kinds: What to draw: 'merges', 'life', 'channels', 'attention',
            'features'. Defaults to all that the model has something to show
            for: merges if tokens become fewer, life if it is predicted,
            channels if there are compactors, attention in plain ViTs, and
            features.
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
        check_positive('images', images)
        check_positive('interval', interval)
        for kind in kinds or ():
            check_choice('kinds', kind, [*DRAWN])
        self.kinds = kinds
        self.images = images
        self.interval = interval
        self._validations = 0

    def before_val(self, runner: Runner) -> None:
        """Settle what to draw."""
        backbone = backbone_of(unwrapped(runner.model))
        shown = [name for name, kind in DRAWN.items() if kind.shows(backbone)]
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
        models = {'this run': Seen(backbone_of(model), images)}
        for kind in self._shown:
            figure = DRAWN[kind].look(models, pictures).whole()
            runner.visualizer.add_image(
                f'compression_{kind}', to_array(figure), step=runner.iter
            )
