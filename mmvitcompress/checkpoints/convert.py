"""Released weights of others as checkpoints of ours."""

import json
from dataclasses import replace
from pathlib import Path

from torch import nn

from mmvitcompress.arch.base import Arch
from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.checkpoints.file import Checkpoint, read_checkpoint
from mmvitcompress.checkpoints.fill import Log, fill_backbone
from mmvitcompress.checkpoints.names import is_swin
from mmvitcompress.checkpoints.recognise import VIT, Weights, recognise
from mmvitcompress.checkpoints.timm import (
    compare,
    create,
    data_config,
    describe,
)
from mmvitcompress.models.swin import Swin
from mmvitcompress.models.vit import ViT


def convert(
    source: str, arch: str | dict | Arch | None = None, log: Log = print
) -> Weights:
    """Turn a released checkpoint into timm's keys and an arch.

    Args:
        source: A file, a URL, or the name of a timm model, which is
            downloaded.
        arch: What can't be seen in tensors; see
            :mod:`mmvitcompress.checkpoints.shapes`.
        log: Told what was assumed. Defaults to print.

    Returns:
        Tensors (classifier included, if there is one), their arch, and how
        images are to be prepared. They have been loaded strictly; a timm
        model's features have been compared.

    Raises:
        CheckpointError: If it can't be read or is neither a plain ViT nor a
            Swin.
        ConfigError: If a timm model computes something else.
    """
    hint = None if arch is None else get_arch(arch)
    if Path(source).exists() or '://' in source:
        weights = recognise(read_checkpoint(source)).with_arch(hint)
        _build(weights, log)
        images = dict(weights.pretrained_cfg) or _beside(Path(source))
        return replace(weights, pretrained_cfg=data_config(images))
    peer = create(source)
    if not is_swin(peer.state_dict()):
        described = describe(peer).arch
        hint = described if hint is None else hint
    stored = Checkpoint(source, {}, peer.state_dict(), {})
    weights = recognise(stored).with_arch(hint)
    model = _build(weights, log)
    compare(lambda image: model(image)[0][0], peer, weights.arch)
    images = data_config(getattr(peer, 'pretrained_cfg', None))
    return replace(weights, pretrained_cfg=images)


def _build(weights: Weights, log: Log) -> nn.Module:
    if weights.family is VIT:
        # where patches are pooled first, one may come after that instead
        normed = 'norm.weight' in weights.tensors
        model = ViT(weights.arch, final_norm=normed).eval()
    else:
        model = Swin(weights.arch).eval()
    fill_backbone(model, weights, log)
    return model


def _beside(path: Path) -> dict:
    """What the hub's files beside the weights say of images."""
    for name in ('config.json', 'preprocessor_config.json'):
        try:
            content = json.loads(path.with_name(name).read_text())
            content = content.get('pretrained_cfg', content)
            renamed = {'image_mean': 'mean', 'image_std': 'std'}
            found = {renamed.get(k, k): v for k, v in content.items()}
        except (OSError, ValueError, AttributeError):
            continue  # none, or not of the hub
        if 'mean' in found and 'std' in found:
            return found
    return {}
