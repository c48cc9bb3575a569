"""The linear classifier, and what its weights are called elsewhere."""

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

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.fc.out_features

    def each(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Tokens (B, prefix + n, D) → logits (B, classes) of each classifier.

        Those of the distillation token, if there is one, come second.
        """
        if not self.num_prefix_tokens:
            return (self.fc(tokens.mean(1)),)
        logits = self.fc(tokens[:, 0])
        if self.fc_dist is None:
            return (logits,)
        return logits, self.fc_dist(tokens[:, 1])

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, prefix + n, D) → logits (B, classes)."""
        logits, *more = self.each(tokens)
        return (logits + more[0]) / 2 if more else logits
