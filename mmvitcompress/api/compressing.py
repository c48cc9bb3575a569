"""``compress``: from a ViT of timm to a compressed model."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from mmvitcompress.api.calibration import Calibration
from mmvitcompress.api.files import assemble, read, timm_state_dict
from mmvitcompress.api.model import CompressedModel
from mmvitcompress.api.pruning import prune_
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.channels import (
    find_compactors,
    fold,
    is_compactor,
    unconverged,
)
from mmvitcompress.checkpoints.fill import resize_pos_embed
from mmvitcompress.checkpoints.timm import Source, compare, create, describe
from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens import METHODS, TokenMerging


def compress(
    model: nn.Module | str | Path,
    token_merging: Mapping | Sequence[int] | TokenMerging | None = None,
    channels: Mapping | None = None,
    *,
    img_size: int | tuple[int, int] | None = None,
    drop_path_rate: float | None = None,
    pretrained: bool = True,
    calibration: str | Path | Tensor | Mapping | None = None,
    **methods,
) -> CompressedModel:
    """Compress a ViT of timm.

    With nothing asked for, the result equals the model. New merges start as
    means, so that the result is a start for fine-tuning; so is one with pruned
    channels, which are chosen by the size of their weights. (CDCP, which
    learns to prune while it trains, is
    :class:`~mmvitcompress.engine.hooks.CDCPHook`.) What learns which patches
    leave needs training before any use: its predictor starts at random.

    Args:
        model: A DeiT, ViT, DeiT-III or DINOv2 of timm, which stays as it is;
            its name; a checkpoint's file, as :func:`load` takes it; or a
            :class:`CompressedModel` to compress further. Compactors that a
            training loop of yours put into its ``backbone`` (see
            :mod:`mmvitcompress.channels`) are folded.
        token_merging: Blocks, counted from 1, before which tokens are merged;
            or the arguments of
            :class:`~mmvitcompress.tokens.TokenMerging`, such as
            ``dict(layers=(5, 8), directions='alternate')``. Defaults to none.
        channels: ``dict(target=0.4)`` to save so much of the dense model's
            MACs, merges included; ``dict(qk=0.75, v=0.75, mlp=0.6)`` for
            fractions that every block keeps; or ``dict(qk_dims=48,
            mlp_dims=1024)`` for widths. More in
            :func:`~mmvitcompress.api.pruning.prune_`. Defaults to none.
        img_size: Image size (H, W), in pixels, that the position embedding is
            made for. Defaults to the model's.
        drop_path_rate: Stochastic depth of the last block. Defaults to the
            model's.
        pretrained: Whether to download the weights of a model that is given
            by its name. Defaults to True.
        calibration: Images without labels: a folder, a tensor of normalised
            ones, or ``dict(images=folder, count=100, img_size=…)``. Channels
            are then chosen by what they do on them, not by the size of their
            weights, the layers after them make up for what is gone, and the
            error that compression leaves in the features is printed and kept
            as ``feature_error`` of the result. Defaults to none.
        **methods: Arguments of any other token method by its key (see
            :data:`~mmvitcompress.tokens.METHODS`), such as
            ``patch_slimming=dict(keep_rate=0.7)``.

    Returns:
        A model of its own, on the same device, of the same dtype, in the same
        mode, and with gradient checkpointing and distilled training set as
        they were; in evaluation mode where a name or file was given.

    Raises:
        ConfigError: If an argument is out of range, a target is out of reach,
            or the model has what can't be compressed, which is named.
        CheckpointError: If weights can't be downloaded or read.
    """
    training = isinstance(model, nn.Module) and model.training
    source, name = _parts(model, pretrained)
    if calibration is not None:
        calibration = Calibration(assemble(source, name), calibration)
    methods['token_merging'] = token_merging
    arch = _wanted(source.arch, methods, img_size)
    options = dict(source.options)
    if drop_path_rate is not None:
        options['drop_path_rate'] = drop_path_rate
    tensors = dict(source.state_dict)
    resize_pos_embed(tensors, source.arch, arch)
    new = tuple(
        f'{spec.key}.'
        for spec in arch.reductions
        if spec not in source.arch.reductions
    )
    for note in source.notes:
        print(f'{name}: {note}')
    source = Source(arch, options, tensors, source.pretrained_cfg)
    result = assemble(source, name, new)
    if channels is not None:
        outside = timm_state_dict(result)
        arch, pruned = prune_(
            result.backbone, channels, result.num_classes, calibration
        )
        source = source._replace(arch=arch, state_dict=outside | pruned)
        result = assemble(source, name)
    if calibration is not None:
        result.feature_error = calibration.error(result.backbone)
        print(
            f'feature error on {len(calibration.held)} images: '
            f'{result.feature_error["feature_error"]:.4f}'
        )
    _take_settings(model, result)
    return result.train(training)


def _take_settings(
    model: nn.Module | str | Path, result: CompressedModel
) -> None:
    """Set what callers switch and no tensor or option tells."""
    if isinstance(model, CompressedModel):
        checkpointing = model.backbone.with_cp
    else:
        checkpointing = getattr(model, 'grad_checkpointing', False)
    result.set_grad_checkpointing(checkpointing)
    distilled = getattr(model, 'distilled_training', False)
    result.set_distilled_training(distilled)


def _parts(model, pretrained: bool) -> tuple[Source, str]:
    """What a model is made of, and what to call it."""
    if isinstance(model, CompressedModel):
        return _parts_of_ours(model), type(model).__name__
    if isinstance(model, str | Path) and Path(model).is_file():
        return read(model), str(model)
    name = model if isinstance(model, str) else type(model).__name__
    if isinstance(model, str | Path):
        remedy = 'pass the file instead, or pass pretrained=False'
        model = create(str(model), pretrained, remedy)
    if not isinstance(model, nn.Module):
        raise ConfigError(
            'model must be a ViT of timm, its name, or a checkpoint, but got '
            f'{model!r}'
        )
    source = describe(model)
    ours = assemble(source, name).eval()
    compare(ours.forward_features, model, source.arch)
    return source, name


def _parts_of_ours(model: CompressedModel) -> Source:
    options = dict(
        num_classes=model.num_classes,
        global_pool=model.global_pool,
        fc_norm=isinstance(model.fc_norm, nn.LayerNorm),
        final_norm=isinstance(model.norm, nn.LayerNorm),
        pool_include_prefix=model.pool_include_prefix,
        drop_rate=model.head_drop.p,
        auxiliary=model.auxiliary,
        drop_path_rate=getattr(
            model.backbone.blocks[-1].drop_path, 'drop_prob', 0.0
        ),
    )
    arch, tensors = model.arch, timm_state_dict(model)
    compactors = find_compactors(model.backbone)
    if compactors:
        left = sum(map(sum, unconverged(compactors)))
        if left:
            raise ConfigError(
                f'{left} masked channels have not become zero, and removing '
                'them would change the model: train longer, or with a larger '
                'learning rate for the compactors'
            )
        arch, folded = fold(model.backbone, divisor=8)
        plain = {k: v for k, v in tensors.items() if not is_compactor(k)}
        tensors = plain | folded
    return Source(arch, options, tensors, model.pretrained_cfg)


def _wanted(
    arch: ViTArch, methods: Mapping, img_size: int | tuple[int, int] | None
) -> ViTArch:
    for key, value in methods.items():
        if key not in METHODS:
            raise ConfigError(
                f'compress takes no argument {key!r}; token methods are '
                f'{", ".join(METHODS)}'
            )
        if value is None:
            continue
        if getattr(arch, key) is not None:
            raise ConfigError(
                f'the model has {key} already ({getattr(arch, key)}); '
                'start from the dense one to change it'
            )
        value = dict(value) if isinstance(value, Mapping) else value
        arch = arch.replace(**{key: value})
    return arch if img_size is None else arch.replace(img_size=img_size)
