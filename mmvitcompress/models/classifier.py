"""Classify images by the tokens that a net returns, as timm's ViTs do."""

from collections.abc import Sequence

from timm.layers import global_pool_nlc, trunc_normal_
from torch import Tensor, nn

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.vit import ViT

POOLS = ('token', 'avg', 'avgmax', 'max', '')


def class_tokens(
    tokens: Tensor,
    prefix: int,
    distilled: bool = False,
    pool: str = 'token',
    include_prefix: bool = False,
) -> tuple[Tensor, ...]:
    """Tokens (B, prefix + n, D) → what each classifier reads, (B, D).

    Args:
        tokens: Those that remain after the last block.
        prefix: How many of them are no patches.
        distilled: Whether token 1 is a distillation token, which a second
            classifier reads. Defaults to False.
        pool: What of the tokens is classified: 'token' ([CLS]), 'avg', 'max'
            or 'avgmax' of the patch tokens, '' for all tokens as they are.
            Defaults to 'token'.
        include_prefix: Whether prefix tokens are pooled as well. Defaults to
            False.
    """
    if distilled:
        return tokens[:, 0], tokens[:, 1]
    pooled = global_pool_nlc(
        tokens,
        pool_type=pool,
        num_prefix_tokens=prefix,
        reduce_include_prefix=include_prefix,
    )
    return (pooled,)


def mean_of(outputs: Sequence[Tensor]) -> Tensor:
    """What one classifier says, or the mean of two, as DeiT does."""
    first, *more = outputs
    return (first + more[0]) / 2 if more else first


def add_auxiliary(logits: Tensor, of_patches: Tensor) -> Tensor:
    """LV-ViT's prediction: [CLS]'s logits (B, classes) and half of the
    largest of all patches' (B, n, classes)."""
    return logits + 0.5 * of_patches.amax(1)


def linear_classifier(dim: int, num_classes: int) -> nn.Linear:
    """A new linear layer, (…, D) → (…, classes)."""
    layer = nn.Linear(dim, num_classes)
    trunc_normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer


class ClassTokenHead(nn.Module):
    """Linear classifier on the [CLS] token, or the mean of the patches.

    With a distillation token there is a second classifier on it; at inference
    both are averaged.

    Args:
        num_classes: Number of classes.
        in_channels: Embedding width D.
        num_prefix_tokens: Prefix tokens of the backbone; with none the patch
            tokens are averaged. Defaults to 1.
        distilled: Whether token 1 is a distillation token. Defaults to False.
        auxiliary: Whether all patches are classified, too; see
            :func:`add_auxiliary`. Defaults to False.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        num_prefix_tokens: int = 1,
        distilled: bool = False,
        auxiliary: bool = False,
    ):
        super().__init__()
        self.num_prefix_tokens = num_prefix_tokens
        self.fc, self.fc_dist, self.fc_aux = (
            linear_classifier(in_channels, num_classes) if wanted else None
            for wanted in (True, distilled, auxiliary)
        )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.fc.out_features

    def each(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Tokens (B, prefix + n, D) → logits (B, classes) of each classifier.

        Those of the distillation token, if there is one, come second.
        """
        prefix, distilled = self.num_prefix_tokens, self.fc_dist is not None
        pool = 'token' if prefix else 'avg'
        read = class_tokens(tokens, prefix, distilled, pool)
        first, *more = (fc(x) for fc, x in zip((self.fc, self.fc_dist), read))
        if self.fc_aux is not None:
            first = add_auxiliary(first, self.fc_aux(tokens[:, prefix:]))
        return first, *more

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, prefix + n, D) → logits (B, classes)."""
        return mean_of(self.each(tokens))


class Classifier(nn.Module):
    """A compressed ViT and a classifier under timm's names.

    Images of any size are taken: they are padded to whole patches, and the
    position embedding is interpolated. With nothing compressed, all outputs
    equal those of timm's ``VisionTransformer``.

    Args:
        arch: Its shape. Where patches are slimmed, they are weighted in
            training mode, so that the predictor learns, and leave in
            evaluation mode only.
        num_classes: Outputs of the classifier; 0 for none. Defaults to 0.
        global_pool: What of the tokens is classified, see
            :func:`class_tokens`. Defaults to 'token'.
        fc_norm: Whether a LayerNorm follows pooling. Defaults to False.
        final_norm: Whether a LayerNorm follows the last block. Defaults to
            True.
        pool_include_prefix: Whether prefix tokens are pooled as well.
            Defaults to False.
        drop_rate: Dropout before the classifier. Defaults to 0.
        drop_path_rate: Stochastic depth of the last block; it rises linearly
            over the blocks. Defaults to 0.
        auxiliary: Whether all patches are classified, too; see
            :func:`add_auxiliary`. Defaults to False.

    Attributes:
        backbone: The :class:`~mmvitcompress.models.ViT`.
        distilled_training: Whether a model with a distillation token returns
            both classifiers' logits while it trains, as timm's does.

    Raises:
        ConfigError: If an argument is out of range.
    """

    def __init__(
        self,
        arch: ViTArch,
        num_classes: int = 0,
        global_pool: str = 'token',
        fc_norm: bool = False,
        final_norm: bool = True,
        pool_include_prefix: bool = False,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        auxiliary: bool = False,
    ):
        super().__init__()
        self._check_pool(arch, global_pool)
        dim, eps = arch.embed_dim, arch.norm_eps
        self.backbone = ViT(
            arch,
            final_norm=False,  # features are wanted before and after it
            drop_path_rate=drop_path_rate,
            training=any(s.untrained for s in arch.reductions),
        )
        self.global_pool = global_pool
        self.pool_include_prefix = pool_include_prefix
        self.norm = nn.LayerNorm(dim, eps=eps) if final_norm else nn.Identity()
        self.fc_norm = nn.LayerNorm(dim, eps=eps) if fc_norm else nn.Identity()
        self.head_drop = nn.Dropout(drop_rate)
        self.distilled_training = False
        self.auxiliary = auxiliary
        self.reset_classifier(num_classes)

    @staticmethod
    def _check_pool(arch: ViTArch, pool: str) -> None:
        if pool not in POOLS:
            raise ConfigError(
                f'global_pool must be one of {POOLS}, but got {pool!r}'
            )
        if pool == 'token' and not arch.class_token:
            raise ConfigError(
                "global_pool='token' needs a [CLS] token, but the arch has "
                "none: pool by 'avg'"
            )
        if pool != 'token' and arch.dist_token:
            raise ConfigError(
                'the classifiers of a distilled model read its tokens: '
                f"global_pool must be 'token', but got {pool!r}"
            )

    @property
    def arch(self) -> ViTArch:
        """The one description of its shape."""
        return self.backbone.arch

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Images (B, 3, H, W) → logits (B, classes).

        Without a classifier the pooled features (B, D). With
        ``distilled_training``, while training, the logits of both classifiers.
        """
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) → the last block's tokens, normalised.

        Returns:
            (B, prefix + n, D), with the n tokens that remain.
        """
        tokens, _ = self.backbone(x)[0]
        return self.norm(tokens)

    def forward_head(
        self, x: Tensor, pre_logits: bool = False
    ) -> Tensor | tuple[Tensor, ...]:
        """Tokens (B, prefix + n, D) → logits (B, classes).

        Args:
            x: What :meth:`forward_features` returned.
            pre_logits: Whether to stop before the classifier. Defaults to
                False.
        """
        read = class_tokens(
            x,
            self.arch.num_prefix_tokens,
            self.arch.dist_token,
            self.global_pool,
            self.pool_include_prefix,
        )
        outputs = tuple(self.head_drop(self.fc_norm(each)) for each in read)
        if not pre_logits:
            heads = [self.head]
            if self.arch.dist_token:
                heads.append(self.head_dist)
            outputs = tuple(head(x) for head, x in zip(heads, outputs))
            if self.auxiliary and self.num_classes:
                patches = self.aux_head(x[:, self.arch.num_prefix_tokens :])
                outputs = add_auxiliary(outputs[0], patches), *outputs[1:]
            if self.distilled_training and self.training and outputs[1:]:
                return outputs
        return mean_of(outputs)

    def reset_classifier(
        self, num_classes: int, global_pool: str | None = None
    ) -> None:
        """Put a new classifier in place.

        Args:
            num_classes: Its outputs; 0 for none.
            global_pool: What it reads. Defaults to what the last one read.
        """
        if global_pool is not None:
            self._check_pool(self.arch, global_pool)
            self.global_pool = global_pool
        self.num_classes = num_classes
        self.head = self._classifier(num_classes)
        if self.arch.dist_token:
            self.head_dist = self._classifier(num_classes)
        if self.auxiliary:
            self.aux_head = self._classifier(num_classes)

    def _classifier(self, num_classes: int) -> nn.Module:
        if not num_classes:
            return nn.Identity()
        like = self.backbone.patch_embed.proj.weight
        layer = linear_classifier(self.arch.embed_dim, num_classes)
        return layer.to(like.device, like.dtype).train(self.training)
