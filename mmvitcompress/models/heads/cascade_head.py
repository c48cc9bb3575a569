"""The CASCADE decoder as a head of MMSegmentation; needs mmseg."""

from collections.abc import Sequence

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from torch import Tensor, nn

from mmvitcompress.errors import ConfigError
from mmvitcompress.models.heads.cascade import CascadeDecoder
from mmvitcompress.registry import MODELS


@MODELS.register_module()
class CascadeDecodeHead(BaseDecodeHead):
    """Predicts from every stage of a :class:`CascadeDecoder`.

    In training every prediction is brought to the size of the labels and has
    losses of its own, which are summed; for inference all are brought to the
    size of the image and summed (CASCADE's multi-stage loss and additive
    feature aggregation).

    Args:
        in_channels: Of the maps, the finest one first.
        widths: Of the decoder's stages, likewise. Defaults to (64, 128, 320,
            512), the paper's.
        stride: Of the finest map, in pixels: how much larger the image is.
            Defaults to 4.
        stage_weights: Factors of the stages' losses, likewise. Defaults to
            all 1.
        **kwargs: Those of mmseg's ``BaseDecodeHead``; ``channels`` is
            ``widths[0]``, ``in_index`` all maps and ``dropout_ratio`` 0.

    Raises:
        ConfigError: If numbers of maps, widths and weights differ, or if an
            argument is given that has no meaning here.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        widths: Sequence[int] = (64, 128, 320, 512),
        stride: int = 4,
        stage_weights: Sequence[float] | None = None,
        **kwargs,
    ):
        count = len(widths)
        stage_weights = stage_weights or (1.0,) * count
        if not len(in_channels) == count == len(stage_weights):
            raise ConfigError(
                'in_channels, widths and stage_weights must name one value '
                f'for each map, but got {len(in_channels)}, {count} and '
                f'{len(stage_weights)} values'
            )
        if kwargs.setdefault('channels', widths[0]) != widths[0]:
            raise ConfigError(
                f'channels must be widths[0] = {widths[0]}, but got '
                f'{kwargs["channels"]}: leave it out'
            )
        if kwargs.get('sampler'):
            raise ConfigError(
                'CascadeDecodeHead has losses at several stages and samples '
                f'no pixels, but got sampler={kwargs["sampler"]}'
            )
        kwargs.setdefault('in_index', list(range(count)))
        kwargs.setdefault('dropout_ratio', 0.0)
        super().__init__(
            in_channels=list(in_channels),
            input_transform='multiple_select',
            **kwargs,
        )
        self.stride = stride
        self.stage_weights = tuple(stage_weights)
        self.decoder = CascadeDecoder(in_channels, widths)
        # conv_seg is the finest stage's
        self.side_convs = nn.ModuleList(
            nn.Conv2d(width, self.out_channels, 1) for width in widths[1:]
        )

    def stages(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (B, C_i, H_i, W_i) → logits (B, classes, H_i, W_i) of each
        stage, the finest first."""
        stages = self.decoder(self._transform_inputs(inputs))
        sides = zip(self.side_convs, stages[1:])
        return (self.cls_seg(stages[0]), *(conv(x) for conv, x in sides))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, H_i, W_i) → summed logits (B, classes, stride·H_0,
        stride·W_0)."""
        stages = self.stages(inputs)
        # to sum up at the finest stage is cheaper, but upsampling twice
        # flattens the peaks of the coarse ones
        size = [side * self.stride for side in stages[0].shape[2:]]
        return sum(self._resize(x, size) for x in stages)

    def loss(
        self,
        inputs: Sequence[Tensor],
        batch_data_samples: list,
        train_cfg: dict | None,
    ) -> dict[str, Tensor]:
        """See :meth:`loss_by_feat`."""
        return self.loss_by_feat(self.stages(inputs), batch_data_samples)

    def _resize(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        return resize(
            logits,
            size=tuple(size),
            mode='bilinear',
            align_corners=self.align_corners,
        )

    def loss_by_feat(
        self, seg_logits: Sequence[Tensor], batch_data_samples: list
    ) -> dict[str, Tensor]:
        """Losses of all stages, summed under the losses' names.

        Returns:
            These, and ``acc_seg``: pixels (%) that the summed logits put into
            the right class.
        """
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)
        stages = [self._resize(x, labels.shape[1:]) for x in seg_logits]
        criteria = self.loss_decode
        if not isinstance(criteria, nn.ModuleList):
            criteria = [criteria]
        losses: dict[str, Tensor] = {}
        for criterion in criteria:
            name = criterion.loss_name
            for weight, logits in zip(self.stage_weights, stages):
                loss = weight * criterion(
                    logits, labels, ignore_index=self.ignore_index
                )
                losses[name] = losses[name] + loss if name in losses else loss
        losses['acc_seg'] = self._accuracy(sum(stages).detach(), labels)
        return losses

    def _accuracy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """In percent; mmseg's own knows no single map of logits."""
        if self.out_channels == 1:
            found = (logits.sigmoid() > self.threshold).squeeze(1)
        else:
            found = logits.argmax(1)
        counted = torch.ones_like(labels, dtype=torch.bool)
        if self.ignore_index is not None:
            counted = labels != self.ignore_index
        right = ((found == labels) & counted).sum()
        return 100 * right / counted.sum().clamp(min=1)
