"""Inference at less cost and with the same numbers.

What training needs apart is put together once: scales and normalisation go
into the layers beside them, the life predictor's two projections become one
matrix, position embeddings are ready for their grid, and widths suit the
kernels. Fresh memory costs a CPU more time than most of what is written to
it, so blocks work in place where they may.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmvitcompress.channels.compactors import is_compactor
from mmvitcompress.deploy.folded_blocks import (
    FoldedLifePredictor,
    InPlaceBlock,
    fold_scales,
    pad_widths,
)
from mmvitcompress.deploy.folded_norms import fold_batch_norms
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.fast.conv import use_fast_convs
from mmvitcompress.models.layers.blocks import LinearStem
from mmvitcompress.models.vit import ViT


@torch.no_grad()
def optimize_for_inference(
    model: nn.Module,
    shape: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """A copy of a model that computes the same with less work.

    - Layer scales and the skip scale go into the projections before them;
      activations and residual sums work in place.
    - Batch norms go into the convolutions before them, in the stem, the neck
      and the heads; on CPUs, 3×3 convolutions take a quarter of their
      multiplications (:mod:`~mmvitcompress.models.fast.winograd`).
    - The life predictor's ⟨P x̄_cls, Q x̄_i⟩ becomes ⟨Qᵀ P x̄_cls, x̄_i⟩.
    - On CUDA, widths are filled up with zeros to multiples of 8, and those of
      queries, keys and values in a head to one.
    - Normalisation of the images goes into the patch embedding, if ``mean``
      and ``std`` are given.

    The copy is for running on the device and in the dtype that the model has:
    its tensors have other shapes, so it can be neither trained nor saved as a
    checkpoint, and ``arch`` still describes the model before.

    Args:
        model: A ViT, or a segmentor, detector or classifier that contains
            one, in evaluation mode. It stays as it is.
        shape: Image size (H, W), in pixels, whose position embedding is made
            ready. Other sizes work as before, interpolated in each call.
            Defaults to None: ready is the size that the arch names.
        mean: Mean of each image channel, to be given for a model that is fed
            tensors: the copy then takes images that aren't normalised.
            Defaults to None.
        std: Standard deviation of each image channel; needed with ``mean``.
            Defaults to None.

    Returns:
        The copy, in evaluation mode and without gradients.

    Raises:
        ConfigError: If the model is in training mode, has compactors or
            contains no ViT, or if ``mean`` and ``std`` don't fit it.
    """
    _check(model)
    if mean is not None or std is not None:
        _check_normalisation(model, mean, std)
    model = _copy(model).requires_grad_(False)
    for vit in _vits(model):
        for block in vit.blocks:
            fold_scales(block)
            if block.mlp.fc1.weight.is_cuda:
                pad_widths(block)
        vit.blocks = nn.ModuleList(map(InPlaceBlock, vit.blocks)).eval()
        slimmer = getattr(vit, 'patch_slimming', None)
        if slimmer is not None:
            slimmer.predictor = FoldedLifePredictor(slimmer.predictor)
        if mean is not None:
            fold_normalisation(vit, mean, std)
        if shape is not None:
            vit.prepare_position(shape)
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


def _check_normalisation(model: nn.Module, mean, std) -> None:
    channels = _vits(model)[0].arch.in_chans
    if any(x is None or len(x) != channels for x in (mean, std)):
        raise ConfigError(
            f'mean and std must be given together, {channels} numbers each, '
            f'but got {mean} and {std}'
        )
    if not all(value > 0 for value in std):
        raise ConfigError(f'std must be positive, but got {tuple(std)}')
    if getattr(
        getattr(model, 'data_preprocessor', None), '_enable_normalize', False
    ):
        raise ConfigError(
            f"{type(model).__name__}'s data_preprocessor normalises images "
            'itself, and pads them behind that: leave mean and std away, or '
            'optimise its backbone alone'
        )


def _vits(model: nn.Module) -> list[ViT]:
    return [module for module in model.modules() if isinstance(module, ViT)]


def _copy(model: nn.Module) -> nn.Module:
    # a teacher, which only losses need, isn't copied
    teacher = getattr(model, '_teacher', None)
    return copy.deepcopy(model, {} if teacher is None else {id(teacher): None})


class _Centred(nn.Module):
    """A stem of images whose mean is subtracted first.

    Its convolutions pad with zeros, which are to stand for the mean.
    """

    def __init__(self, stem: nn.Module, mean: Tensor):
        super().__init__()
        self.stem = stem
        self.register_buffer('mean', mean, persistent=False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H·p, W·p) → (B, D, H, W)."""
        return self.stem(x - self.mean)


def fold_normalisation(
    vit: ViT, mean: Sequence[float], std: Sequence[float]
) -> None:
    """Let a ViT take images that aren't normalised, in place.

    Args:
        vit: Its stem's first convolution takes up (x − mean) / std. A stem
            that pads inside subtracts the mean itself.
        mean: Of each image channel.
        std: Of each image channel.
    """
    stem = vit.patch_embed
    conv = stem.proj if isinstance(stem, LinearStem) else stem.conv1
    mean, std = (
        torch.tensor(x, dtype=torch.double).view(-1, 1, 1) for x in (mean, std)
    )
    weight = conv.weight.double()
    scaled = weight / std.to(weight.device)
    conv.weight.copy_(scaled)
    mean = mean.to(weight.device)
    vit._border = mean.to(conv.weight.dtype)
    if isinstance(stem, LinearStem):
        conv.bias.copy_(conv.bias.double() - (scaled * mean).sum((1, 2, 3)))
    else:
        vit.patch_embed = _Centred(stem, vit._border.clone())
