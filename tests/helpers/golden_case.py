"""A model of which goldens are kept, and small nets to make it of."""

from copy import deepcopy
from dataclasses import dataclass, field

from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope, init_default_scope
from recipes import read
from torch import nn

from mmvitcompress.registry import MODELS


@dataclass(frozen=True)
class Case:
    """A model, and what it is run on.

    Attributes:
        model: Name of a config, maybe with another backbone, as
            ``recipes.read`` takes it; or the dict of a backbone.
        options: Values of the config's model, by dotted keys.
        necks: Dicts of what follows a backbone.
        size: Height and width of the images, in pixels.
        batch: Number of images.
        train: Whether to run in training mode, with gradients.
        single: What the names of those outputs begin with that depend on
            numbers in float32: on resampled position embeddings, or on
            mmdet's sine encodings.
        resampled: Whether the position embedding stays that of the config's
            image size; otherwise it is made for ``size``.
    """

    model: str | dict
    options: dict = field(default_factory=dict)
    necks: tuple[dict, ...] = ()
    size: tuple[int, int] = (64, 96)
    batch: int = 1
    train: bool = False
    single: str | None = None
    resampled: bool = False

    def build(self):
        """The model with random weights."""
        DefaultScope._instance_dict.clear()
        if isinstance(self.model, str):
            return revert_sync_batchnorm(self._from_config())
        init_default_scope('mmseg')
        sized = {} if self.resampled else dict(img_size=self.size)
        model = MODELS.build(deepcopy(self.model) | sized)
        if self.necks:
            arch = model.arch
            parts = [MODELS.build(dict(neck)) for neck in self.necks]
            model = nn.Sequential(model, *parts)
            model.arch = arch
        return revert_sync_batchnorm(model)

    def _from_config(self):
        cfg = read(self.model)
        cfg.model.pop('distillation', None)  # its teacher wants weights
        cfg.model.backbone.checkpoint = None
        if not self.resampled:
            cfg.model.backbone.img_size = self.size
        for key, value in self.options.items():
            *path, last = key.split('.')
            node = cfg.model
            for part in path:
                node = node[int(part) if isinstance(node, list) else part]
            node[last] = deepcopy(value)
        return MODELS.build(cfg.model)


DIM = 48
SMALL = dict(embed_dim=DIM, depth=12, num_heads=3)
PRUNED = dict(
    qk_dims=[16, 12, 8, 14, 10, 16, 6, 12, 16, 8, 10, 4],
    v_dims=[12, 16, 10, 8, 16, 14, 12, 6, 16, 4, 8, 16],
    mlp_dims=[192, 160, 96, 128, 64, 80, 176, 48, 112, 144, 72, 56],
)
MICRO = dict(
    base='vit_micro',
    qk_dims=[32, 24, 16, 28, 20, 32, 12, 24],
    v_dims=[24, 32, 20, 16, 32, 28, 24, 12],
    mlp_dims=[384, 320, 192, 256, 128, 160, 352, 96],
)
SWIN = dict(
    family='swin',
    embed_dim=24,
    depths=(2, 2, 6, 2),
    num_heads=(1, 2, 4, 8),
    window_size=3,
)
SWIN_DIMS = [24, 48, 96, 192]
PRUNED_SWIN = dict(
    SWIN,
    qk_dims=[24, 16, 20, 8, 12, 24, 16, 20, 8, 24, 4, 12],
    v_dims=[16, 24, 8, 20, 24, 12, 20, 16, 24, 8, 12, 4],
    mlp_dims=[96, 64, 192, 96, 384, 128, 256, 320, 96, 200, 768, 384],
)
MERGES = dict(layers=(5, 8))


def net(name='small', **changes):
    """Overrides that make a backbone of a config small."""
    arch = dict(small=SMALL, pruned=SMALL | PRUNED)[name]
    return {'backbone.arch': dict(arch, **changes)}


def swin(arch=SWIN, **changes):
    return {'backbone.arch': dict(arch, **changes)}
