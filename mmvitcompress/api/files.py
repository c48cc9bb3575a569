"""Compressed models as files, the same that backbones load."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mmvitcompress.api.model import CompressedModel
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.channels import find_compactors
from mmvitcompress.checkpoints.file import (
    read_checkpoint,
    refuse_compactors,
    write_checkpoint,
)
from mmvitcompress.checkpoints.heads import to_timm_head
from mmvitcompress.checkpoints.load import load_strict
from mmvitcompress.checkpoints.names import has_pool
from mmvitcompress.checkpoints.recognise import VIT, recognise
from mmvitcompress.checkpoints.timm import Source, data_config
from mmvitcompress.errors import CheckpointError

# what stands beside the backbone; all other tensors of timm's belong to it
_OUTSIDE = ('norm.', 'fc_norm.', 'head.', 'head_dist.', 'aux_head.')
_PRETRAINING = 'return_dense'  # LV-ViT's, of no use later
_HEAD = ('global_pool', 'pool_include_prefix')


def save(model: CompressedModel, path: str | Path, **meta) -> None:
    """Write a model to one file that carries its own shape.

    ``backbone.checkpoint`` of a config takes it as well as :func:`load`.

    Args:
        model: What :func:`~mmvitcompress.api.compress` or :func:`load`
            returned, maybe trained.
        path: Ends in ``.pth`` or ``.safetensors``.
        **meta: What else to note, of builtin types, such as
            ``metrics=dict(top1=81.2)``.

    Raises:
        CheckpointError: If the name ends in something else, the model is of
            another class or was cut, or it has compactors.
    """
    if not isinstance(model, CompressedModel):
        raise CheckpointError(
            'save writes what compress or load returned, but got a '
            f'{type(model).__name__}; unwrap it (model.module of '
            'DistributedDataParallel, model._orig_mod of torch.compile)'
        )
    if len(model.backbone.blocks) < model.arch.depth:
        raise CheckpointError(
            f'blocks were cut away ({len(model.backbone.blocks)} of '
            f'{model.arch.depth} are left): save the model before '
            'prune_intermediate_layers'
        )
    if find_compactors(model.backbone):
        raise CheckpointError(
            'the model still has compactors: fold them by '
            'mmvitcompress.compress(model) and save the result'
        )
    write_checkpoint(
        path,
        timm_state_dict(model),
        model.arch,
        head={name: getattr(model, name) for name in _HEAD},
        pretrained_cfg=data_config(model.pretrained_cfg),
        **meta,
    )


def load(path: str | Path) -> CompressedModel:
    """Read a model from a file, in evaluation mode.

    Args:
        path: What :func:`save`, ``tools/export_pruned.py`` or
            ``tools/convert_checkpoint.py`` wrote, a training checkpoint of a
            backbone or classifier of ours, or one of timm or DeiT.

    Raises:
        CheckpointError: If it is missing, unsafe, damaged, or no plain ViT.
    """
    return assemble(read(path), path).eval()


def read(path: str | Path) -> Source:
    """Take a checkpoint apart; see :func:`load`."""
    checkpoint = read_checkpoint(path)
    refuse_compactors(checkpoint.state_dict, path)
    weights = recognise(checkpoint, VIT).with_arch()
    state_dict = {
        name: value
        for name, value in to_timm_head(weights.tensors).items()
        if not name.startswith(_PRETRAINING)
    }
    arch, config = weights.arch, data_config(weights.pretrained_cfg)
    if arch.stem == 'conv':
        config = {'crop_pct': 0.9, **config}  # as LV-ViT is evaluated
    options = _head_options(arch, state_dict, checkpoint.noted('head'))
    if has_pool(checkpoint.state_dict):
        options['global_pool'] = ''
    return Source(arch, options, state_dict, config)


def _head_options(
    arch: ViTArch, state_dict: Mapping[str, Tensor], noted: Mapping
) -> dict:
    """What of a head can be seen in its tensors, or was noted beside."""
    pooled = 'fc_norm.weight' in state_dict
    pool = 'token' if arch.class_token and not pooled else 'avg'
    return {
        'num_classes': len(state_dict.get('head.weight', ())),
        'global_pool': pool,
        'fc_norm': pooled,
        'final_norm': 'norm.weight' in state_dict,
        'auxiliary': 'aux_head.weight' in state_dict,
        **{name: noted[name] for name in _HEAD if name in noted},
    }


def assemble(
    source: Source, name: str | Path, may_miss: tuple[str, ...] = ()
) -> CompressedModel:
    """Make a model of its parts, strictly.

    Args:
        source: Its parts.
        name: Where they came from, for messages.
        may_miss: Prefixes of tensors, under timm's names, that may start
            anew.

    Raises:
        CheckpointError: If a tensor is missing, unexpected or mis-shaped.
    """
    model = CompressedModel(source.arch, **source.options)
    like = source.state_dict['patch_embed.proj.weight']
    model = model.to(like.device, like.dtype)
    tensors = {from_timm_keys(k): v for k, v in source.state_dict.items()}
    load_strict(model, tensors, name, tuple(map(from_timm_keys, may_miss)))
    arch = source.arch
    size = (arch.in_chans, *arch.img_size)
    model.pretrained_cfg = {**source.pretrained_cfg, 'input_size': size}
    return model


def from_timm_keys(name: str) -> str:
    """The name in a :class:`CompressedModel` of one of timm's tensors."""
    return name if name.startswith(_OUTSIDE) else f'backbone.{name}'


def timm_state_dict(model: CompressedModel) -> dict[str, Tensor]:
    """All tensors under timm's names."""
    return {
        name.removeprefix('backbone.'): value
        for name, value in model.state_dict().items()
    }
