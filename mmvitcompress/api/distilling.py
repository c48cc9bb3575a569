"""``distill``: a compressed model learns its dense one's features."""

import copy
from pathlib import Path

import torch
from torch import nn

from mmvitcompress.api.calibration import most_patches, normalisation_of
from mmvitcompress.api.compressing import compress
from mmvitcompress.api.model import CompressedModel
from mmvitcompress.errors import ConfigError
from mmvitcompress.utils.checks import (
    check_positive,
    check_positive_number,
    pair,
)


def distill(
    model: CompressedModel,
    teacher: nn.Module | str | Path,
    images: str | Path,
    *,
    epochs: int = 10,
    batch_size: int = 16,
    lr: float = 2e-4,
    img_size: int | tuple[int, int] | None = None,
    work_dir: str | Path = 'work_dirs/distill',
    resume: bool = False,
    bfloat16: bool = False,
    hold_out: float = 0.05,
    num_workers: int = 2,
    seed: int = 0,
) -> CompressedModel:
    """Train a compressed model to have its dense one's features.

    Needs no labels, and MMEngine. What is compared says
    :func:`~mmvitcompress.models.layers.features.feature_losses`; it is done
    after each quarter of the blocks. Norm and classifier behind the blocks
    stay as they are. Losses, and after each epoch the feature error on images
    that were held out, are logged, and written to ``work_dir`` with a
    checkpoint.

    Args:
        model: What :func:`~mmvitcompress.api.compress` returned; stays as it
            is.
        teacher: What it was made of: a model, timm's name, or a checkpoint.
        images: A folder of images, in folders or not, of any sizes.
        epochs: How often to see all images. Defaults to 10.
        batch_size: Images a step. Defaults to 16.
        lr: Learning rate of AdamW, which falls by a cosine. Defaults to 2e-4.
        img_size: Size (H, W) of the crops, in pixels. Defaults to the
            model's, at most 16 patches a side.
        work_dir: Where logs and checkpoints go.
        resume: Whether to go on from the newest checkpoint in ``work_dir``,
            exactly as if the run had not stopped. Defaults to False.
        bfloat16: Whether to compute in bfloat16 where that is safe, which is
            faster on most hardware. Defaults to False.
        hold_out: Share of the images, by a hash of their file names, to
            measure the error on. Defaults to 0.05.
        num_workers: Processes that read images. Defaults to 2.
        seed: Of crops and order. Defaults to 0.

    Returns:
        The trained model, in evaluation mode.

    Raises:
        ConfigError: If an argument is out of range, or the teacher is not
            dense or has other features.
        DataError: If there are no images, or one can't be read.
        DependencyError: If MMEngine is missing.
    """
    if not isinstance(model, CompressedModel):
        raise ConfigError(
            'distill trains what mmvitcompress.compress returned, but got a '
            f'{type(model).__name__}'
        )
    for name, value in dict(epochs=epochs, batch_size=batch_size).items():
        check_positive(name, value)
    check_positive_number('lr', lr)
    # imported here: compressing needs none of it
    import mmvitcompress.registry  # noqa: F401, says what is missing
    from mmvitcompress.engine import launch
    from mmvitcompress.engine.weights import choose_weights
    from mmvitcompress.models import FeatureDistiller

    student = copy.deepcopy(model)
    dense = compress(teacher).backbone.to(next(model.parameters()).dtype)
    size = most_patches(model.arch)
    size = size if img_size is None else pair('img_size', img_size)
    data = dict(data_root=str(images), hold_out=hold_out)
    cfg = _config(model, data, size, epochs, batch_size, num_workers)
    cfg.optim_wrapper.optimizer.lr = lr
    if bfloat16:
        cfg.optim_wrapper.type = 'BFloat16OptimWrapper'
    cfg.work_dir, cfg.randomness = str(work_dir), dict(seed=seed)
    with torch.random.fork_rng(), launch.naming_data_errors():
        choose_weights(cfg, 'auto' if resume else None)
        launch.add_training_hooks(cfg)
        distiller = FeatureDistiller(student.backbone, dense)
        launch.build_runner(cfg, distiller).train()
    return student.eval()


def _config(
    model, data: dict, size, epochs: int, batch_size: int, workers: int
):
    """The run, in the words of configs/distill."""
    from mmengine.config import Config

    def loader(training: bool, **transform) -> dict:
        transform |= dict(
            input_size=(3, *size),
            is_training=training,
            interpolation='bicubic',
            **normalisation_of(model),
        )
        return dict(
            batch_size=batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            sampler=dict(type='DefaultSampler', shuffle=training),
            dataset=dict(
                type='UnlabelledImages',
                **data,
                held_out=not training,
                transform=transform,
            ),
            collate_fn=dict(type='default_collate'),
        )

    step = dict(by_epoch=True, convert_to_iter_based=True)
    fall = dict(type='CosineAnnealingLR', eta_min=1e-6, end=epochs, **step)
    return Config(
        dict(
            default_scope='mmvitcompress',
            launcher='none',
            train_dataloader=loader(True, scale=(0.3, 1.0), color_jitter=None),
            val_dataloader=loader(False, crop_pct=1.0),
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            val_cfg={},
            val_evaluator=dict(type='FeatureError'),
            optim_wrapper=dict(
                type='OptimWrapper',
                constructor='ViTOptimWrapperConstructor',
                optimizer=dict(type='AdamW', weight_decay=0.05),
            ),
            param_scheduler=[fall],
            default_hooks=dict(
                checkpoint=dict(
                    type='CheckpointHook', interval=1, max_keep_ckpts=2
                )
            ),
        )
    )
