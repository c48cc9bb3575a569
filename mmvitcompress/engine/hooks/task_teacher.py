"""A dense model trained on the task teaches the one that is compressed."""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmvitcompress.engine.build import build
from mmvitcompress.engine.config import read_config
from mmvitcompress.engine.wrappers import unwrapped
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.layers.features import normalised
from mmvitcompress.models.necks import UnmergeGuided
from mmvitcompress.registry import HOOKS
from mmvitcompress.tokens import TokenMap, restore
from mmvitcompress.utils.checks import (
    check_at_least_zero,
    check_positive_number,
)


@HOOKS.register_module()
class TaskTeacherHook(Hook):
    """Adds what a trained model says of the same images to the losses.

    For segmentors and detectors around any backbone; a classifier has
    ``distillation``. The teacher is frozen, sees the images as the model does,
    augmented and normalised, and is no part of checkpoints: exporting and
    resuming know nothing of it.

    Two losses join the model's own. ``loss_teacher_logits`` of segmentors is
    the mean over positions of KL(teacher ‖ model) of their classes, as the
    head's last convolution gives them, times T². ``loss_teacher_features`` is
    the mean squared difference of the backbone's restored maps, each position
    normalised over its channels, mean over maps; where an
    :class:`~mmvitcompress.models.necks.UnmergeGuided` restores them, of what
    it makes of them.

    Weights are such that the teacher, which says the same of the same image
    whenever it comes, outweighs labels, whose gradient is far noisier. At
    weights of 1 features don't come closer at all while a ViT learns a task
    for the second time.

    Args:
        config: Config of the teacher's run.
        checkpoint: Checkpoint that it wrote, or of tools/export_pruned.py.
        logits: Weight of the first loss; 0 for detectors. Defaults to 3.
        features: Weight of the second. Defaults to 30.
        temperature: T, by which logits are divided. Defaults to 1.

    Raises:
        ConfigError: Before training or in its first step, if the teacher has
            other classes, maps or normalisation, or no such logits.
        CheckpointError: If its checkpoint can't be read or doesn't fit.
    """

    def __init__(
        self,
        config: str | Path,
        checkpoint: str | Path,
        logits: float = 3.0,
        features: float = 30.0,
        temperature: float = 1.0,
    ):
        check_at_least_zero('logits', logits)
        check_at_least_zero('features', features)
        check_positive_number('temperature', temperature)
        if not logits and not features:
            raise ConfigError(
                'logits and features are both 0, so that there is nothing to '
                'learn from the teacher: leave TaskTeacherHook out'
            )
        self.config, self.checkpoint = str(config), str(checkpoint)
        self.weights = dict(logits=logits, features=features)
        self.temperature = temperature
        self._handles = []

    def before_train(self, runner: Runner) -> None:
        """Build the teacher, and watch both."""
        student = unwrapped(runner.model)
        cfg = read_config(self.config)
        scope = runner.default_scope.scope_name
        if cfg.get('default_scope') != scope:
            raise ConfigError(
                f'{self.config} is a config of {cfg.get("default_scope")}, '
                f'but the run is one of {scope}: name the config that the '
                'teacher was trained by'
            )
        teacher = build(cfg, self.checkpoint, 'predict').requires_grad_(False)
        self.teacher = teacher.to(next(student.parameters()).device)
        _check_images(student, teacher)
        if self.weights['logits']:
            _check_classes(_classifier(student), _classifier(teacher))
        self._run_teacher = self.teacher
        if not self.weights['logits']:  # no further than the maps
            whole = _restoring(teacher) is teacher.backbone
            part = teacher.backbone if whole else teacher.extract_feat
            self._run_teacher = part
        self._seen = {id(model): {} for model in (student, teacher)}
        self._handles = [
            student.register_forward_hook(self._teach, with_kwargs=True),
            *self._watch(student),
            *self._watch(teacher),
        ]

    def _watch(self, model: nn.Module) -> list:
        seen, parts = self._seen[id(model)], {}
        if self.weights['features']:
            parts['features'] = _restoring(model)
        if self.weights['logits']:
            parts['logits'] = _classifier(model)

        def note(name: str, output) -> None:
            if model.training or model is self.teacher:  # else predictions
                seen[name] = output

        return [
            part.register_forward_hook(lambda *args, n=name: note(n, args[2]))
            for name, part in parts.items()
        ]

    def _teach(
        self, student: nn.Module, args: tuple, kwargs: Mapping, losses
    ) -> dict | None:
        """The losses with the teacher's; None where there are none."""
        if kwargs.get('mode', args[2] if len(args) > 2 else '') != 'loss':
            return None
        images = kwargs['inputs'] if 'inputs' in kwargs else args[0]
        with torch.no_grad():
            self._run_teacher(images)
        ours, theirs = self._seen.values()
        found = dict(losses)
        if self.weights['logits']:
            found['loss_teacher_logits'] = self.weights['logits'] * kl(
                ours['logits'], theirs['logits'], self.temperature
            )
        if self.weights['features']:
            loss = feature_distance(ours['features'], theirs['features'])
            found['loss_teacher_features'] = self.weights['features'] * loss
        ours.clear()
        theirs.clear()
        return found

    def after_train(self, runner: Runner) -> None:
        """Leave the model as it came."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


def kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T²·KL(teacher ‖ student) of logits (B, C, H, W), mean over positions."""
    log_p, log_q = (
        F.log_softmax(x.float() / temperature, 1) for x in (teacher, student)
    )
    loss = F.kl_div(log_q, log_p, reduction='none', log_target=True)
    return temperature**2 * loss.sum(1).mean()


def feature_distance(student, teacher) -> Tensor:
    """Mean squared difference of maps (B, C, H, W) that are normalised over C.

    Args:
        student: The maps of a backbone, or :class:`~.tokens.TokenMap`.
        teacher: As many.

    Raises:
        ConfigError: If they differ in number or shape.
    """
    ours, theirs = ([_map(x) for x in maps] for maps in (student, teacher))
    shapes = [[tuple(x.shape[1:]) for x in maps] for maps in (ours, theirs)]
    if shapes[0] != shapes[1]:
        raise ConfigError(
            f"the teacher's backbone returns maps {shapes[1]} (C, H, W), the "
            f"model's {shapes[0]}: give both the same out_indices, or set "
            'features=0'
        )
    return torch.stack(
        [
            F.mse_loss(*(normalised(x.movedim(1, -1)) for x in pair))
            for pair in zip(ours, theirs)
        ]
    ).mean()


def _map(output: Tensor | TokenMap) -> Tensor:
    return restore(*output) if isinstance(output, TokenMap) else output


def _restoring(model: nn.Module) -> nn.Module:
    """What returns the maps that are compared."""
    neck = getattr(model, 'neck', None) or nn.Identity()
    guided = (m for m in neck.modules() if isinstance(m, UnmergeGuided))
    return next(guided, model.backbone)


def _classifier(model: nn.Module) -> nn.Module:
    """What gives a segmentor's logits."""
    head = getattr(model, 'decode_head', None)
    layer = getattr(head, 'conv_seg', None)
    if layer is None:
        kind = type(model if head is None else head).__name__
        raise ConfigError(
            f'{kind} has no conv_seg, whose logits of each position a teacher '
            'could tell: set logits=0 and learn from its features alone'
        )
    return layer


def _check_classes(student: nn.Module, teacher: nn.Module) -> None:
    ours, theirs = student.out_channels, teacher.out_channels
    if ours != theirs or ours < 2:
        raise ConfigError(
            f'the teacher gives {theirs} logits for each position, the model '
            f'{ours}: they must be as many, and 2 at least; else set logits=0'
        )


def _check_images(student: nn.Module, teacher: nn.Module) -> None:
    for name in ('mean', 'std'):
        ours, theirs = (
            torch.as_tensor(getattr(model.data_preprocessor, name, 0.0)).cpu()
            for model in (student, teacher)
        )
        if ours.shape != theirs.shape or not torch.allclose(ours, theirs):
            raise ConfigError(
                f"the teacher's images have {name} "
                f"{theirs.flatten().tolist()}, the model's "
                f'{ours.flatten().tolist()}: set the same data_preprocessor'
            )
