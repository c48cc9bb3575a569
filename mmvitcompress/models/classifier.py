"""Image classification around a compressed backbone."""

import torch.nn.functional as F
from mmengine.model import BaseModel
from timm.layers import trunc_normal_
from torch import Tensor, nn

from mmvitcompress.registry import MODELS


@MODELS.register_module()
class ClassTokenHead(nn.Module):
    """Linear classifier on the [CLS] token, or the mean of the patches.

    With a distillation token there is a second classifier on it; at inference
    both are averaged, as DeiT does.

    Args:
        num_classes: Number of classes.
        in_channels: Embedding width D.
        num_prefix_tokens: Prefix tokens of the backbone; with none the patch
            tokens are averaged. Defaults to 1.
        distilled: Whether token 1 is a distillation token. Defaults to False.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        num_prefix_tokens: int = 1,
        distilled: bool = False,
    ):
        super().__init__()
        self.num_prefix_tokens = num_prefix_tokens
        self.fc = nn.Linear(in_channels, num_classes)
        self.fc_dist = (
            nn.Linear(in_channels, num_classes) if distilled else None
        )
        for layer in (self.fc, self.fc_dist):
            if layer is not None:
                trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, prefix + n, D) → logits (B, classes)."""
        if not self.num_prefix_tokens:
            return self.fc(tokens.mean(1))
        logits = self.fc(tokens[:, 0])
        if self.fc_dist is not None:
            logits = (logits + self.fc_dist(tokens[:, 1])) / 2
        return logits


@MODELS.register_module()
class ImageClassifier(BaseModel):
    """A backbone that returns tokens, and a linear classifier.

    Args:
        backbone: Config of a backbone; ``out_type='raw'``,
            ``final_norm=True`` and its last block as the only output are
            filled in.
        num_classes: Number of classes. Defaults to 1000.
        label_smoothing: Share of the target spread over all classes, in
            [0, 1). Defaults to 0.
        data_preprocessor: Config of MMEngine's data preprocessor. Defaults to
            one that only moves data to the device.
        init_cfg: As MMEngine's.
    """

    def __init__(
        self,
        backbone: dict,
        num_classes: int = 1000,
        label_smoothing: float = 0.0,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(
            dict(out_type='raw', final_norm=True, out_indices=[-1]) | backbone
        )
        arch = self.backbone.arch
        self.head = ClassTokenHead(
            num_classes,
            arch.embed_dim,
            arch.num_prefix_tokens,
            arch.dist_token,
        )
        self.label_smoothing = label_smoothing

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
                the cross-entropy. Defaults to 'tensor'.
        """
        logits = self.head(self.backbone(inputs)[-1])
        if mode != 'loss':
            return logits
        loss = F.cross_entropy(
            logits, targets, label_smoothing=self.label_smoothing
        )
        return dict(loss=loss)
