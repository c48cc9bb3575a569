"""Compression without labels: a dense ViT teaches its compressed copy."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.model import BaseModel
from torch import Tensor, nn

from mmvitcompress.arch.base import dense
from mmvitcompress.arch.windows import quarter_ends
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.layers.features import (
    TERMS,
    Outputs,
    error_sums,
    feature_losses,
)
from mmvitcompress.models.losses.teacher import FrozenTeacher, Taught
from mmvitcompress.registry import MODELS
from mmvitcompress.utils.checks import (
    check_at_least_zero,
    check_typed,
    output_indices,
)


@MODELS.register_module()
class FeatureDistiller(Taught, BaseModel):
    """A backbone that learns the features of its dense teacher.

    Both see the same images; no label is needed. What is compared, and how,
    says :func:`~mmvitcompress.models.layers.features.feature_losses`. Works
    with every token method, with ``compactors=True`` and
    :class:`~mmvitcompress.engine.hooks.CDCPHook`, and with
    ``soft_slimming=True`` and
    :class:`~mmvitcompress.engine.hooks.LifeRegressionHook`.

    Args:
        backbone: The student: config of a backbone of ours, or a net. The
            checkpoint's final norm is kept as it is (``final_norm=False``
            where it has none); features are compared before it.
        teacher: The dense net: a checkpoint's file, the config of a backbone,
            or a net. It stays frozen, and is no part of checkpoints. Defaults
            to the checkpoint that the student starts from, without token
            methods; None where there is none (a model to be exported).
        indices: Blocks (of a Swin: stages) whose features are compared,
            counted from 0. Defaults to the student's ``out_indices``.
        weights: Of the terms ``map``, ``prefix`` and ``merged``. Those that
            aren't named have 1, 1 and 0: merged tokens that are handed back
            to all that they cover learn the mean by ``map`` as well.
        data_preprocessor: As MMEngine's. Defaults to one that only moves data
            to the device.
        init_cfg: As MMEngine's.

    Raises:
        ConfigError: If the teacher reduces tokens, has other features than
            the student, or an argument is out of range.
        CheckpointError: If a checkpoint can't be read or doesn't fit.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        teacher: str | Path | dict | nn.Module | None = None,
        indices: int | Sequence[int] | None = None,
        weights: dict | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ):
        check_typed('backbone', backbone)
        check_typed('teacher', teacher)
        super().__init__(data_preprocessor, init_cfg)
        self.weights = {'map': 1.0, 'prefix': 1.0, 'merged': 0.0}
        self.weights |= weights or {}
        for name, value in self.weights.items():
            check_at_least_zero(f'weights.{name}', value)
        if len(self.weights) > len(TERMS):
            raise ConfigError(
                f'weights may name {", ".join(TERMS)}, but got '
                f'{", ".join(weights)}'
            )
        own = None
        if isinstance(backbone, dict):
            own = backbone.get('checkpoint')
            backbone = MODELS.build({'final_norm': True, **backbone})
        self.backbone = backbone
        if backbone.norm is not None:
            backbone.norm.requires_grad_(False)
        self.prefix = getattr(backbone, 'num_prefix_tokens', 0)
        self.mode = getattr(backbone, 'restore_mode', 'nearest')
        parts = getattr(backbone, 'blocks', None) or backbone.layers
        if indices is None:
            indices = getattr(backbone, 'out_indices', None)
        if indices is None:
            indices = quarter_ends(len(parts))
        self.indices = sorted(output_indices(indices, len(parts), 'block'))
        teacher = own if teacher is None else teacher
        if teacher is not None:
            self._teacher = FrozenTeacher(self._build_teacher(teacher))

    def _build_teacher(self, teacher) -> nn.Module:
        arch = dense(self.backbone.arch)
        if isinstance(teacher, str | Path):
            kind = 'Swin' if arch.family == 'swin' else 'ViT'
            teacher = dict(
                type=f'mmvitcompress.Compressed{kind}',
                arch=arch,
                checkpoint=teacher,
            )
        if isinstance(teacher, dict):
            last = self.indices[-1]
            teacher = MODELS.build({'out_indices': [last], **teacher})
        _check_teacher(teacher.arch, arch)
        return _Intermediates(teacher, self.indices)

    def forward(
        self, inputs: Tensor, mode: str = 'tensor'
    ) -> dict[str, Tensor] | list[Tensor] | tuple:
        """Compare student and teacher.

        Args:
            inputs: Images (B, 3, H, W), normalised.
            mode: 'loss' for the weighted terms ``loss_map``, ``loss_prefix``
                and ``loss_merged``; 'predict' for what
                :class:`~mmvitcompress.evaluation.FeatureError` adds up, one
                tensor for each image; 'tensor' for what the backbone returns.
                Defaults to 'tensor'.

        Raises:
            ConfigError: If there is no teacher to compare with.
        """
        if mode == 'tensor':
            return self.backbone(inputs)
        if self._teacher is None:
            raise ConfigError(
                'FeatureDistiller has no teacher: name the dense checkpoint '
                'as model.backbone.checkpoint or model.teacher'
            )
        student: Outputs = self.backbone.intermediates(inputs, self.indices)
        outputs = student, self._teacher(inputs), self.prefix, self.mode
        if mode == 'predict':
            return [*error_sums(*outputs)]
        terms = [name for name in TERMS if self.weights[name]]
        losses = feature_losses(*outputs, terms)
        return {f'loss_{n}': self.weights[n] * x for n, x in losses.items()}


class _Intermediates(nn.Module):
    """A net that returns tokens and states of some blocks."""

    def __init__(self, net: nn.Module, indices: Sequence[int]):
        super().__init__()
        self.net, self.indices = net, indices

    def forward(self, x: Tensor) -> list:
        return self.net.intermediates(x, self.indices)


def _check_teacher(teacher, student) -> None:
    """Raise ConfigError unless a teacher's features are what a dense
    student's would be, by their archs."""
    if teacher.reductions:
        keys = ', '.join(spec.key for spec in teacher.reductions)
        raise ConfigError(
            f'the teacher must be dense, but its arch has {keys}: name the '
            'dense checkpoint that it was made of as model.teacher'
        )
    for name in (
        *('family', 'patch_size', 'num_prefix_tokens'),
        *('embed_dim', 'depth', 'depths'),
    ):
        ours, theirs = (getattr(a, name, None) for a in (student, teacher))
        if ours != theirs:
            raise ConfigError(
                f"the teacher's {name} must be {ours}, as the student's, but "
                f'got {theirs}: take the dense model that the student was '
                'made of'
            )
