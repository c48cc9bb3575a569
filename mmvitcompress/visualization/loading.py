"""Trained models to look into: loading and running them, and their images."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from mmengine.config import Config
from numpy import ndarray
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from mmvitcompress.analysis.configs import as_shape, load_config
from mmvitcompress.analysis.images import tested_images
from mmvitcompress.arch.swin import MERGE_STAGE
from mmvitcompress.engine.build import build
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.swin import Swin
from mmvitcompress.models.vit import ViT
from mmvitcompress.tokens import TokenState, restore


def load_model(
    path: str,
    checkpoint: str | None = None,
    options: dict | None = None,
    whole: bool = False,
    backbone: str | None = None,
) -> tuple[Config, nn.Module]:
    """A config and its model with weights, in evaluation mode.

    Args:
        path: The config.
        checkpoint: Of a training run, one that prunes channels included, or
            what tools/export_pruned.py has written. Defaults to the config's
            ``load_from``, or random weights.
        options: Values of the config to override, by dotted key.
        whole: Whether the head needs weights, too. Defaults to False.
        backbone: What --backbone names. Defaults to the config's own.

    Raises:
        ConfigError: If the config can't be read.
        CheckpointError: If the checkpoint is missing or of another model.
    """
    config = load_config(path, options, backbone)
    if checkpoint is None:
        checkpoint = config.get('load_from')
    purpose = 'look' if checkpoint is None or not whole else 'test'
    return config, build(config, checkpoint, purpose)


def load_images(
    config: Config,
    model: nn.Module,
    source: str = 'dataset',
    count: int = 4,
    shape: Sequence[int] | None = None,
) -> list[Tensor]:
    """:func:`~mmvitcompress.analysis.images.tested_images`, equal ones only
    once; ``shape`` may be one number for height and width."""
    shape = as_shape(shape) if shape else None
    images = tested_images(source, config, model, count, shape)
    return [
        image
        for place, image in enumerate(images)
        if not any(torch.equal(image, other) for other in images[:place])
    ]


def to_pictures(
    images: Iterable[Tensor], model: nn.Module, config: Config
) -> list[ndarray]:
    """Images (3, H, W) as people see them: RGB (H, W, 3), uint8, padding
    included. The model's data preprocessor knows mean and deviation, or else
    its config's data."""
    preprocessor = getattr(model, 'data_preprocessor', None)
    if getattr(preprocessor, 'mean', None) is not None:
        mean, std = preprocessor.mean, preprocessor.std
    else:
        data = (config.get('test_dataloader') or {}).get('dataset') or {}
        transform = data.get('transform') or {}
        mean = transform.get('mean') or IMAGENET_DEFAULT_MEAN
        std = transform.get('std') or IMAGENET_DEFAULT_STD
        mean, std = (255 * torch.tensor(values) for values in (mean, std))
    mean, std = (v.view(3, 1, 1).cpu() for v in (mean, std))
    # OpenMMLab loads BGR, which the preprocessor may leave as it is
    turned = getattr(preprocessor, 'channel_conversion', False)  # mmseg
    turned = turned or getattr(preprocessor, '_channel_conversion', False)
    bgr = hasattr(preprocessor, 'mean') and not turned
    pictures = []
    for image in images:
        pixels = (image.cpu() * std + mean).round().clamp(0, 255).byte()
        pixels = pixels.flip(0) if bgr else pixels
        pictures.append(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
    return pictures


def backbone_of(model: nn.Module) -> ViT | Swin:
    """The backbone of ours that a model has.

    Raises:
        ConfigError: If it has none.
    """
    backbone = getattr(model, 'backbone', model)
    if not isinstance(backbone, ViT | Swin):
        raise ConfigError(
            'pictures of tokens need a backbone of type CompressedViT or '
            f'CompressedSwin, but got {type(backbone).__name__}'
        )
    return backbone


@torch.no_grad()
def run_tokens(
    backbone: ViT | Swin, images: Tensor, take: Sequence[int] | None = None
) -> list[tuple[Tensor, TokenState]]:
    """Patch tokens and their states after some blocks, whatever a backbone
    returns.

    Args:
        backbone: Any of ours; run in evaluation mode, and left in its own.
        images: (B, 3, H, W), normalised.
        take: Blocks (of a ViT) or stages (of a Swin), counted from 0.
            Defaults to the last one.

    Returns:
        For each of them (B, n, D), without prefix tokens, and the state.

    Raises:
        ConfigError: As of :func:`backbone_of`.
    """
    backbone = backbone_of(backbone)
    family = Swin if isinstance(backbone, Swin) else ViT
    training = backbone.training
    try:
        outputs = family.forward(backbone.eval(), images, take)
    finally:
        backbone.train(training)
    prefix = getattr(backbone, 'num_prefix_tokens', 0)
    return [(tokens[:, prefix:], state) for tokens, state in outputs]


def token_map(tokens: Tensor, state: TokenState) -> Tensor:
    """Which of the patch tokens (B, n, D) each place of the full grid belongs
    to: (B, H, W), from 0; -1 for patches that have left.

    However tokens were reduced: their places are restored like features.
    """
    batch, count, _ = tokens.shape
    # double precision holds every place exactly
    index = torch.arange(count, dtype=torch.float64, device=tokens.device)
    index = index.expand(batch, count).unsqueeze(2)
    left = index.new_full((1,), -1)
    return restore(index, state, 'nearest', left)[:, 0].long()


@torch.no_grad()
def attended_tokens(
    backbone: ViT | Swin, images: Tensor
) -> list[tuple[Tensor, TokenState]]:
    """Patch tokens (B, n, D) in the attention of each block, of a Swin of
    those of stage 3, and their states; see :func:`run_tokens`."""
    backbone, latest, seen = backbone_of(backbone), [], []
    swin = isinstance(backbone, Swin)
    blocks = backbone.layers[MERGE_STAGE].blocks if swin else backbone.blocks
    prefix = getattr(backbone, 'num_prefix_tokens', 0)

    def watch(method, name: str) -> None:
        hook = getattr(method, name)

        def watched(*args):
            x, state = hook(*args)
            latest[:] = [state]
            return x, state

        setattr(method, name, watched)

    def entered(block, inputs) -> None:
        x = inputs[0]  # (B, h, w, D) in a Swin
        grid = tuple(x.shape[1:3])
        if not swin:
            grid = backbone.arch.grid(tuple(images.shape[-2:]))
        x = x.flatten(1, -2)[:, prefix:]
        seen.append((x, latest[0] if latest else TokenState.start(grid)))

    handles = [block.register_forward_pre_hook(entered) for block in blocks]
    names = ('before', 'between', 'after')
    for method in backbone.methods:
        for name in names:
            watch(method, name)
    try:
        run_tokens(backbone, images)
    finally:
        for handle in handles:
            handle.remove()
        for method in backbone.methods:
            for name in names:
                delattr(method, name)
    return seen
