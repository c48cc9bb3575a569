"""Released weights of others as checkpoints of ours."""

from pathlib import Path

from torch import Tensor, nn

from mmvitcompress.arch.base import Arch
from mmvitcompress.arch.zoo import get_arch
from mmvitcompress.checkpoints.file import Checkpoint, read_checkpoint
from mmvitcompress.checkpoints.load import load_strict
from mmvitcompress.checkpoints.recognise import SWIN, VIT, Weights, recognise
from mmvitcompress.checkpoints.timm import compare, create, describe
from mmvitcompress.checkpoints.vit import HEAD_PREFIXES
from mmvitcompress.models.swin import Swin
from mmvitcompress.models.vit import ViT

_NETS = {VIT: ViT, SWIN: Swin}


def convert(
    source: str, arch: str | dict | Arch | None = None
) -> tuple[dict[str, Tensor], Arch]:
    """Turn a released checkpoint into timm's keys and an arch.

    Args:
        source: A file, or the name of a timm model, which is downloaded.
        arch: What can't be seen in tensors; see
            :func:`~mmvitcompress.checkpoints.vit.infer_arch` and
            :func:`~mmvitcompress.checkpoints.swin.infer_swin_arch`.

    Returns:
        Tensors (classifier included, if there is one) and their arch. They
        have been loaded strictly; a timm model's features have been compared.

    Raises:
        CheckpointError: If it can't be read or is neither a plain ViT nor a
            Swin.
        ConfigError: If a timm model computes something else.
    """
    hint = None if arch is None else get_arch(arch)
    if Path(source).exists():
        weights = recognise(read_checkpoint(source)).with_arch(hint)
        _build(weights)
        return weights.tensors, weights.arch
    peer = create(source)
    weights = recognise(Checkpoint(source, {}, peer.state_dict(), {}))
    if weights.family is VIT and hint is None:
        hint = describe(peer).arch
    weights = weights.with_arch(hint)
    model = _build(weights)
    compare(lambda image: model(image)[0][0], peer, weights.arch)
    return weights.tensors, weights.arch


def _build(weights: Weights) -> nn.Module:
    model = _NETS[weights.family](weights.arch).eval()
    load_strict(model, weights.tensors, weights.path, may_ignore=HEAD_PREFIXES)
    return model
