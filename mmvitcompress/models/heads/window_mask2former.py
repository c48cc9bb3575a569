"""Mask2Former in windows that slide over an image; needs mmseg and mmdet."""

from collections.abc import Mapping, Sequence

from mmseg.models.decode_heads import Mask2FormerHead
from torch import Tensor

from mmvitcompress.registry import MODELS


@MODELS.register_module()
class WindowMask2FormerHead(Mask2FormerHead):
    """mmseg's ``Mask2FormerHead`` that ``test_cfg.mode='slide'`` can use.

    MMSegmentation's scales the logits of a window to the size of the padded
    image, so that the first validation fails where the sizes are added up.
    Weights, training and whole images are the same.

    Args:
        **kwargs: Those of mmseg's ``Mask2FormerHead``.
    """

    def predict(
        self,
        x: Sequence[Tensor],
        batch_img_metas: Sequence[Mapping],
        test_cfg: Mapping,
    ) -> Tensor:
        """Logits (B, classes, H, W) of whole images or of one window each.

        Args:
            x: Features of the neck, (B, C, H / s, W / s) each.
            batch_img_metas: Of the images; where windows slide, MMSegmentation
                notes a window's size as ``img_shape`` of the first.
            test_cfg: How the segmentor tests; ``mode`` is 'whole' or 'slide'.
        """
        if test_cfg.get('mode') == 'slide':
            size = batch_img_metas[0]['img_shape']
            metas = [{**meta, 'pad_shape': size} for meta in batch_img_metas]
            return super().predict(x, metas, test_cfg)
        return super().predict(x, batch_img_metas, test_cfg)
