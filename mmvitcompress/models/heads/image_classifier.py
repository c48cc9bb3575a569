"""Image classification around a compressed backbone."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmvitcompress.checkpoints.file import hold_checkpoint
from mmvitcompress.checkpoints.heads import load_head
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.backbones.parts import log
from mmvitcompress.models.classifier import ClassTokenHead
from mmvitcompress.models.losses.distillation import (
    build_teacher,
    check_distillation,
    hard_distillation,
)
from mmvitcompress.models.losses.mixup import (
    MixupPreprocessor,
    check_smoothing,
)
from mmvitcompress.models.losses.soft_distillation import (
    SOFT,
    check_soft,
    patch_loss,
    soft_losses,
)
from mmvitcompress.models.losses.teacher import Taught
from mmvitcompress.registry import MODELS
from mmvitcompress.utils.checks import check_positive, check_typed


@MODELS.register_module()
class ImageClassifier(Taught, BaseModel):
    """A backbone that returns tokens, and a linear classifier.

    Args:
        backbone: Config of a backbone; ``out_type='raw'``,
            ``final_norm=True`` and its last block as the only output are
            filled in. From its ``checkpoint`` the classifier is loaded as
            well, if there is one for as many classes.
        num_classes: Number of classes. Defaults to 1000.
        label_smoothing: Share of the target spread over all classes, in
            [0, 1). Defaults to 0.
        distillation: ``dict(teacher=…, alpha=0.25)`` for hard distillation:
            loss = (1 − α)·CE(student, target) + α·CE(student, argmax
            teacher). The teacher is the config of an ``ImageClassifier`` with
            a checkpoint or of a ``TimmClassifier`` with weights; it stays
            frozen, sees the same (mixed) images, and is no part of
            checkpoints. It is to be fed images of the same size and
            normalisation. Where there is a distillation token, the teacher
            judges its classifier, as in DeiT. In place of ``alpha``
            ``soft=0.5, tokens=0.5`` add, with these weights, the divergence
            from the teacher's logits and the mean squared difference from its
            last patches, of those that are left (DynamicViT); the teacher is
            then an ``ImageClassifier`` of the same width. Defaults to None.
        auxiliary_head: Whether a second classifier reads all patches, half of
            whose largest logits are added, as LV-ViT's released models have
            it. It trains with the first. Defaults to False.
        data_preprocessor: Config of MMEngine's data preprocessor, or of
            ``MixupPreprocessor``, whose ``num_classes`` is filled in.
            Defaults to one that only moves data to the device.
        init_cfg: As MMEngine's.

    Raises:
        ConfigError: If an argument is out of range, if labels would be
            smoothed twice, or if the teacher has other classes.
        CheckpointError: If a checkpoint can't be read or doesn't fit.
    """

    def __init__(
        self,
        backbone: dict,
        num_classes: int = 1000,
        label_smoothing: float = 0.0,
        distillation: dict | None = None,
        auxiliary_head: bool = False,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ):
        check_smoothing(label_smoothing)
        check_positive('num_classes', num_classes)
        check_typed('backbone', backbone)
        check_typed('data_preprocessor', data_preprocessor)
        if isinstance(data_preprocessor, dict) and str(
            data_preprocessor.get('type')
        ).endswith('MixupPreprocessor'):
            data_preprocessor = dict(num_classes=num_classes) | dict(
                data_preprocessor
            )
        super().__init__(data_preprocessor, init_cfg)
        self._check_targets(num_classes, label_smoothing)
        # backbone, head and maybe the teacher are made of one file
        stored = hold_checkpoint(backbone.get('checkpoint'))
        self.backbone = MODELS.build(
            dict(out_type='raw', final_norm=True, out_indices=[-1]) | backbone
        )
        arch = self.backbone.arch
        self.head = ClassTokenHead(
            num_classes,
            arch.num_features,
            arch.num_prefix_tokens,
            arch.dist_token,
            auxiliary_head,
        )
        self.label_smoothing = label_smoothing
        self.has_weights = stored is not None and load_head(
            self.head, stored, log
        )
        self._soft = {}
        if distillation is not None:
            check_distillation(distillation)
            self._alpha = distillation.get('alpha', 0.25)
            self._teacher = build_teacher(distillation['teacher'], num_classes)
            if any(name in distillation for name in SOFT):
                self._soft = {k: distillation.get(k, 0.0) for k in SOFT}
            check_soft(distillation, self.teacher, arch)

    def _check_targets(self, num_classes: int, smoothing: float) -> None:
        mixup = self.data_preprocessor
        if not isinstance(mixup, MixupPreprocessor):
            return
        if smoothing and mixup.label_smoothing:
            raise ConfigError(
                'labels would be smoothed twice: set label_smoothing of the '
                f'model ({smoothing}) or of its data_preprocessor '
                f'({mixup.label_smoothing}) to 0'
            )
        if mixup.num_classes != num_classes:
            raise ConfigError(
                f'data_preprocessor.num_classes must be {num_classes}, as the '
                f"model's, but got {mixup.num_classes}"
            )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.head.num_classes

    def forward(
        self,
        inputs: Tensor,
        targets: Tensor | None = None,
        mode: str = 'tensor',
    ) -> Tensor | dict[str, Tensor]:
        """Classify images.

        Args:
            inputs: Images (B, 3, H, W), normalised.
            targets: Class indices (B) or soft targets (B, classes); needed
                for the loss.
            mode: 'tensor' or 'predict' for logits (B, classes), 'loss' for
                the cross-entropy; with a teacher, for its weighted terms
                ``loss_cls`` and ``loss_distill`` (or ``loss_soft`` and
                ``loss_tokens``). Defaults to 'tensor'.
        """
        if mode == 'loss' and self._soft:
            return self._learn_softly(inputs, targets)
        tokens = self.backbone(inputs)[-1]
        if mode != 'loss':
            return self.head(tokens)
        if self._teacher is None:
            loss = F.cross_entropy(
                self.head(tokens),
                targets,
                label_smoothing=self.label_smoothing,
            )
            return dict(loss=loss)
        each = self.head.each(tokens)
        return hard_distillation(
            each[0],
            targets,
            each[-1],
            self._teacher(inputs).argmax(1),
            self._alpha,
            self.label_smoothing,
        )

    def _learn_softly(
        self, inputs: Tensor, targets: Tensor
    ) -> dict[str, Tensor]:
        net, last = self.backbone, len(self.backbone.blocks) - 1
        tokens, state = net.intermediates(inputs, (last,))[0]
        tokens = tokens if net.norm is None else net.norm(tokens)
        weight, prefix = self._soft['tokens'], net.num_prefix_tokens
        if weight:
            with torch.no_grad():
                taught = self.teacher.backbone(inputs)[-1]
                logits = self.teacher.head(taught)
        else:
            logits = self._teacher(inputs)
        losses = soft_losses(
            self.head(tokens),
            targets,
            logits,
            self._soft['soft'],
            self.label_smoothing,
        )
        if weight:
            loss = patch_loss(tokens, state, taught, prefix, net.methods)
            losses['loss_tokens'] = weight * loss
        return losses
