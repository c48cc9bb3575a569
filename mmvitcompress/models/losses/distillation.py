"""Hard distillation: the student learns what a frozen teacher decides."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from mmvitcompress.checkpoints.file import hold_checkpoint, read_checkpoint
from mmvitcompress.checkpoints.heads import head_classes
from mmvitcompress.checkpoints.load import load_strict
from mmvitcompress.checkpoints.timm import create
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.losses.soft_distillation import SOFT
from mmvitcompress.models.losses.teacher import FrozenTeacher
from mmvitcompress.registry import MODELS
from mmvitcompress.utils.checks import check_typed, is_number


@MODELS.register_module()
class TimmClassifier(BaseModel):
    """Any classifier of timm, as a teacher or to compare with.

    Args:
        name: Of a timm model, such as 'regnety_160.deit_in1k'.
        pretrained: Whether to download timm's weights. Defaults to False.
        checkpoint_path: File with its weights. Defaults to None.
        num_classes: Number of classes. Defaults to the model's.
        input_mean: What was subtracted from the channels of the images that
            come in. Where the weights were trained with another, they are
            normalised anew. Defaults to ImageNet's, as ``create_transform``.
        input_std: What the channels were divided by then. Defaults to
            ImageNet's.
        data_preprocessor: As MMEngine's.
        init_cfg: As MMEngine's.
        **kwargs: Further arguments of ``timm.create_model``, such as
            ``img_size=64``.

    Raises:
        ConfigError: If timm has no such model, or its weights are for other
            classes.
        CheckpointError: If the weights can't be read or are another model's.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = False,
        checkpoint_path: str | None = None,
        num_classes: int | None = None,
        input_mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN,
        input_std: tuple[float, ...] = IMAGENET_DEFAULT_STD,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
        **kwargs,
    ):
        check_typed('data_preprocessor', data_preprocessor)
        for part, value in (('mean', input_mean), ('std', input_std)):
            if len(value) != 3 or (part == 'std' and min(value) <= 0):
                raise ConfigError(
                    f'input_{part} must be a number for each of 3 channels, '
                    f'deviations above 0, but got {value}'
                )
        super().__init__(data_preprocessor, init_cfg)
        if pretrained and checkpoint_path:
            raise ConfigError(
                'pretrained and checkpoint_path exclude each other, but got '
                f'pretrained=True and checkpoint_path={checkpoint_path!r}'
            )
        if num_classes is not None and not pretrained:
            kwargs['num_classes'] = num_classes
        remedy = 'pass the file as checkpoint_path'
        self.model = create(name, pretrained, remedy, **kwargs)
        if num_classes not in (None, self.num_classes):
            raise ConfigError(
                f'the weights of timm model {name!r} are for '
                f'{self.num_classes} classes, but num_classes is {num_classes}'
            )
        self.has_weights = pretrained or bool(checkpoint_path)
        if checkpoint_path:
            tensors = read_checkpoint(checkpoint_path).state_dict
            load_strict(self.model, tensors, checkpoint_path)
        self.input_mean, self.input_std = tuple(input_mean), tuple(input_std)
        own = self.model.pretrained_cfg
        mean, std, in_mean, in_std = (
            torch.tensor(value).view(-1, 1, 1)
            for value in (own['mean'], own['std'], input_mean, input_std)
        )
        self.renormalises = not (
            torch.equal(mean, in_mean) and torch.equal(std, in_std)
        )
        self.register_buffer('scale', in_std / std, persistent=False)
        self.register_buffer('shift', (in_mean - mean) / std, persistent=False)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.model.num_classes

    def forward(
        self,
        inputs: Tensor,
        targets: Tensor | None = None,
        mode: str = 'tensor',
    ) -> Tensor | dict[str, Tensor]:
        """Classify images; see :meth:`ImageClassifier.forward`."""
        if self.renormalises:
            inputs = inputs * self.scale + self.shift
        logits = self.model(inputs)
        if mode != 'loss':
            return logits
        return dict(loss=F.cross_entropy(logits, targets))


def build_teacher(
    teacher: dict | nn.Module, num_classes: int
) -> FrozenTeacher:
    """Build a teacher, and see that it has learned these classes.

    Args:
        teacher: Config of an ``ImageClassifier`` whose backbone has a
            ``checkpoint``, of a ``TimmClassifier`` with weights, or a model
            with ``num_classes``.
        num_classes: The student's.

    Raises:
        ConfigError: If it has other classes or no weights.
    """
    if isinstance(teacher, nn.Module):
        model = teacher
    else:
        config = dict(teacher)
        path = (config.get('backbone') or {}).get('checkpoint')
        stored = hold_checkpoint(path)
        if stored is not None and 'num_classes' not in config:
            config['num_classes'] = head_classes(stored) or num_classes
        model = MODELS.build(config)
        if not getattr(model, 'has_weights', True):
            raise ConfigError(
                'distillation.teacher must have learned something, but '
                f'{config.get("type")} has no weights for its classifier: '
                'name a file as its checkpoint (backbone.checkpoint of an '
                'ImageClassifier, checkpoint_path of a TimmClassifier)'
            )
    if model.num_classes != num_classes:
        raise ConfigError(
            f'distillation.teacher knows {model.num_classes} classes, but '
            f'the model has {num_classes}: take a teacher trained on the same '
            'classes'
        )
    return FrozenTeacher(model)


def check_distillation(config: dict) -> None:
    """Raise ConfigError unless there is a teacher and an α in (0, 1]."""
    keys = set(config)
    forms = {'teacher', 'alpha'}, {'teacher', *SOFT}
    if 'teacher' not in keys or not any(keys <= form for form in forms):
        raise ConfigError(
            'distillation must be dict(teacher=…, alpha=…), or '
            'dict(teacher=…, soft=…, tokens=…), but got the keys '
            f'{sorted(map(str, config))}'
        )
    check_typed('distillation.teacher', config['teacher'])
    alpha = config.get('alpha', 1)
    if not is_number(alpha) or not 0 < alpha <= 1:
        raise ConfigError(
            f'distillation.alpha must lie in (0, 1], but got {alpha!r}'
        )


def hard_distillation(
    logits: Tensor,
    targets: Tensor,
    student: Tensor,
    teacher: Tensor,
    alpha: float,
    label_smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """(1 − α)·CE(student, target) + α·CE(student, argmax teacher).

    Args:
        logits: What the targets judge (B, classes).
        targets: Class indices (B) or soft targets (B, classes).
        student: What the teacher judges (B, classes): the same logits, or
            those of the distillation token.
        teacher: Classes (B) that the teacher decided for.
        alpha: The teacher's share, in (0, 1].
        label_smoothing: Of the targets; the teacher's word is taken as it is.

    Returns:
        The two terms, weighted; their sum is the loss.
    """
    truth = F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    return dict(
        loss_cls=(1 - alpha) * truth,
        loss_distill=alpha * F.cross_entropy(student, teacher),
    )
