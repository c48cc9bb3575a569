"""The compressed model that people outside OpenMMLab work with."""

from collections.abc import Sequence

from timm.layers import global_pool_nlc, trunc_normal_
from torch import Tensor, nn

from mmvitcompress.api.features import FORMATS, block_indices, normalised
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.vit import ViT
from mmvitcompress.tokens import restore
from mmvitcompress.utils.checks import check_choice

POOLS = ('token', 'avg', 'avgmax', 'max', '')


class CompressedModel(nn.Module):
    """A compressed ViT with timm's calls.

    Images of any size are taken: they are padded to whole patches, and the
    position embedding is interpolated. With nothing compressed, all outputs
    equal those of timm's ``VisionTransformer``.

    Args:
        arch: Its shape. Where patches are slimmed, they are weighted in
            training mode, so that the predictor learns, and leave in
            evaluation mode only.
        num_classes: Outputs of the classifier; 0 for none. Defaults to 0.
        global_pool: What of the tokens is classified: 'token' ([CLS]), 'avg',
            'max' or 'avgmax' of the patch tokens that remain, '' for all
            tokens. Defaults to 'token'.
        fc_norm: Whether a LayerNorm follows pooling. Defaults to False.
        final_norm: Whether a LayerNorm follows the last block. Defaults to
            True.
        pool_include_prefix: Whether prefix tokens are pooled as well.
            Defaults to False.
        drop_rate: Dropout before the classifier. Defaults to 0.
        drop_path_rate: Stochastic depth of the last block; it rises linearly
            over the blocks. Defaults to 0.

    Attributes:
        backbone: The :class:`~mmvitcompress.models.ViT`.
        distilled_training: Whether a model with a distillation token returns
            both classifiers' logits while it trains, as timm's does.
        pretrained_cfg: How images are to be prepared, as
            ``timm.data.resolve_model_data_config`` reads it.

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
    ):
        super().__init__()
        self._check_pool(arch, global_pool)
        dim, eps = arch.embed_dim, arch.norm_eps
        self.backbone = ViT(
            arch,
            final_norm=False,  # features are wanted before and after it
            drop_path_rate=drop_path_rate,
            soft_slimming=any(s.untrained for s in arch.reductions),
        )
        self.global_pool = global_pool
        self.pool_include_prefix = pool_include_prefix
        self.norm = nn.LayerNorm(dim, eps=eps) if final_norm else nn.Identity()
        self.fc_norm = nn.LayerNorm(dim, eps=eps) if fc_norm else nn.Identity()
        self.head_drop = nn.Dropout(drop_rate)
        self.distilled_training = False
        self.pretrained_cfg: dict = {}
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

    @property
    def embed_dim(self) -> int:
        """Channels D of all features."""
        return self.arch.embed_dim

    num_features = head_hidden_size = embed_dim  # timm's other names

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the patches: [CLS], distillation, registers."""
        return self.arch.num_prefix_tokens

    # -- forward ------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
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
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Tokens (B, prefix + n, D) → logits (B, classes).

        Args:
            x: What :meth:`forward_features` returned.
            pre_logits: Whether to stop before the classifier. Defaults to
                False.
        """
        if self.arch.dist_token:
            return self._distilled_head(x, pre_logits)
        x = global_pool_nlc(
            x,
            pool_type=self.global_pool,
            num_prefix_tokens=self.num_prefix_tokens,
            reduce_include_prefix=self.pool_include_prefix,
        )
        x = self.head_drop(self.fc_norm(x))
        return x if pre_logits else self.head(x)

    def _distilled_head(self, x: Tensor, pre_logits: bool):
        cls, dist = self.head_drop(x[:, 0]), self.head_drop(x[:, 1])
        if not pre_logits:
            cls, dist = self.head(cls), self.head_dist(dist)
            if self.distilled_training and self.training:
                return cls, dist
        return (cls + dist) / 2

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
        restore_mode: str = 'nearest',
    ) -> list | tuple[Tensor, list]:
        """Features of several blocks, restored to the full patch grid.

        Merged tokens return to all positions that they cover, slimmed patches
        to their own with the feature that they left with.

        Args:
            x: Images (B, 3, H, W).
            indices: Blocks, counted from 0, negative ones from the end; one
                number takes so many of the last blocks. Defaults to all.
            return_prefix_tokens: Whether each output is a pair of a map and
                the prefix tokens (B, prefix, D). Defaults to False.
            norm: Whether maps go through the final norm. Defaults to False.
            output_fmt: 'NCHW' or 'NLC'. Defaults to 'NCHW'.
            intermediates_only: Whether to leave the first result away.
                Defaults to False.
            restore_mode: How merges are undone, 'nearest' or 'bilinear'.
                Defaults to 'nearest'.

        Returns:
            The last block's tokens, as :meth:`forward_features` has them, and
            in the order of the blocks one map (B, D, ⌈H/p⌉, ⌈W/p⌉) or, as
            'NLC', (B, N, D) each.

        Raises:
            ConfigError: If an argument is out of range.
        """
        check_choice('output_fmt', output_fmt, FORMATS)
        depth = self.arch.depth
        wanted = block_indices(indices, depth)
        *others, last = self.backbone(x, {*wanted, depth - 1})
        outputs = [*others, last] if wanted[-1] == depth - 1 else others
        intermediates = []
        for tokens, state in outputs:
            if norm:
                tokens, state = normalised(tokens, state, self.norm)
            prefix, patches = (
                tokens[:, : self.num_prefix_tokens],
                tokens[:, self.num_prefix_tokens :],
            )
            features = restore(patches, state, restore_mode)
            if output_fmt == 'NLC':
                features = features.flatten(2).transpose(1, 2)
            pair = (features, prefix)
            intermediates.append(pair if return_prefix_tokens else features)
        if intermediates_only:
            return intermediates
        return self.norm(last[0]), intermediates

    # -- cost ---------------------------------------------------------------

    def macs(
        self,
        img_size: int | tuple[int, int] | None = None,
        convention: str = 'fvcore',
    ) -> int:
        """Multiply-accumulates for one image, classifier included.

        Args:
            img_size: Image size (H, W), in pixels. Defaults to the arch's.
            convention: See :data:`mmvitcompress.arch.base.CONVENTIONS`.
                Defaults to 'fvcore'.
        """
        final = isinstance(self.norm, nn.LayerNorm)
        macs = self.arch.macs(
            img_size, self.num_classes, None, final, convention
        )
        pooled = isinstance(self.fc_norm, nn.LayerNorm)
        return macs + 5 * self.embed_dim * (pooled and convention == 'fvcore')

    # -- what timm's tools ask for ------------------------------------------

    def get_classifier(self) -> nn.Module | tuple[nn.Module, nn.Module]:
        """The classifier; both of a distilled model."""
        if self.arch.dist_token:
            return self.head, self.head_dist
        return self.head

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

    def _classifier(self, num_classes: int) -> nn.Module:
        if not num_classes:
            return nn.Identity()
        like = self.backbone.patch_embed.proj.weight
        layer = nn.Linear(self.embed_dim, num_classes)
        trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
        return layer.to(like.device, like.dtype).train(self.training)

    def set_distilled_training(self, enable: bool = True) -> None:
        """Return both classifiers' logits while training, or their mean."""
        self.distilled_training = enable

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass, to save memory."""
        self.backbone.with_cp = enable

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that are to have no weight decay."""
        tokens = ('pos_embed', 'cls_token', 'reg_token', 'dist_token')
        return {f'backbone.{name}' for name in tokens}

    def group_matcher(self, coarse: bool = False) -> dict:
        """Patterns for layer-wise learning rates, as timm's optimizers read.

        A merge belongs to the block that follows it.
        """
        # what tells its block by its name; the rest comes with the head
        named, rest = ['blocks'], ['norm']
        for key in self.backbone.method_keys:
            method = getattr(self.backbone, key)
            names = [name for name, _ in method.named_parameters()]
            numbered = all(name.split('.')[0].isdigit() for name in names)
            (named if numbered else rest).append(
                key if numbered else rf'backbone\.{key}'
            )
        block = rf'^backbone\.(?:{"|".join(named)})\.(\d+)'
        stem = (
            r'^backbone\.(?:cls_token|dist_token|reg_token|pos_embed|'
            r'patch_embed)'
        )
        last = (rf'^(?:{"|".join(rest)})', (99999,))
        return dict(stem=stem, blocks=[(block, None), last])
