"""Inference at less cost and with the same numbers."""

import copy

import torch
from torch import nn

from mmvitcompress.channels.compactors import is_compactor
from mmvitcompress.deploy.folded_blocks import (
    fold_scales,
    pad_widths,
)
from mmvitcompress.deploy.folded_norms import fold_batch_norms
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.fast.conv import use_fast_convs
from mmvitcompress.models.vit import ViT


@torch.no_grad()
def optimize_for_inference(model: nn.Module) -> nn.Module:
    """A copy of a model that computes the same with less work.

    - Layer scales and the skip scale go into the projections before them.
    - Batch norms go into the convolutions before them, in the stem, the neck
      and the heads; on CPUs, 3×3 convolutions take a quarter of their
      multiplications (:mod:`~mmvitcompress.models.fast.winograd`).
    - The life predictor's ⟨P x̄_cls, Q x̄_i⟩ becomes ⟨Qᵀ P x̄_cls, x̄_i⟩.
    - On CUDA, widths are filled up with zeros to multiples of 8, and those of
      queries, keys and values in a head to one.

    The copy is for running on the device and in the dtype that the model has:
    its tensors have other shapes, so it can be neither trained nor saved as a
    checkpoint, and ``arch`` still describes the model before.

    Args:
        model: A ViT, or a segmentor, detector or classifier that contains
            one, in evaluation mode. It stays as it is.

    Returns:
        The copy, in evaluation mode and without gradients.

    Raises:
        ConfigError: If the model is in training mode, has compactors or
            contains no ViT.
    """
    _check(model)
    # a teacher, which only losses need, isn't copied
    teacher = getattr(model, '_teacher', None)
    model = copy.deepcopy(model, {id(teacher): None}).requires_grad_(False)
    for vit in _vits(model):
        for block in vit.blocks:
            fold_scales(block)
            if block.mlp.fc1.weight.is_cuda:
                pad_widths(block)
        for method in vit.methods:
            method.fold_()
    fold_batch_norms(model)
    use_fast_convs(model)
    return model


def _check(model: nn.Module) -> None:
    if any(module.training for module in model.modules()):
        raise ConfigError(
            'optimize_for_inference needs a model in evaluation mode, since '
            'what it folds would no longer learn: call model.eval() first'
        )
    if any(is_compactor(name) for name, _ in model.named_parameters()):
        raise ConfigError(
            'the model has compactors, which are to be folded first: export '
            'it by tools/export_pruned.py and load the result'
        )
    if not _vits(model):
        raise ConfigError(
            f'{type(model).__name__} contains no ViT; optimize_for_inference '
            'is made for CompressedViT and models around one'
        )


def _vits(model: nn.Module) -> list[ViT]:
    return [module for module in model.modules() if isinstance(module, ViT)]
