"""The compressed model that people outside OpenMMLab work with."""

from collections.abc import Sequence

from torch import Tensor, nn

from mmvitcompress.api.features import FORMATS, block_indices, normalised
from mmvitcompress.models.classifier import Classifier
from mmvitcompress.tokens import restore
from mmvitcompress.utils.checks import check_choice


class CompressedModel(Classifier):
    """A compressed ViT with timm's calls.

    Arguments and what it computes are those of
    :class:`~mmvitcompress.models.classifier.Classifier`.

    Attributes:
        backbone: The :class:`~mmvitcompress.models.ViT`.
        pretrained_cfg: How images are to be prepared, as
            ``timm.data.resolve_model_data_config`` reads it.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.pretrained_cfg: dict = {}

    @property
    def embed_dim(self) -> int:
        """Channels D of all features."""
        return self.arch.embed_dim

    num_features = head_hidden_size = embed_dim  # timm's other names

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the patches: [CLS], distillation, registers."""
        return self.arch.num_prefix_tokens

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
        if self.auxiliary:
            patches = self.arch.counts(img_size)[-1].mlp
            macs += patches * self.num_classes * self.embed_dim
        pooled = isinstance(self.fc_norm, nn.LayerNorm)
        return macs + 5 * self.embed_dim * (pooled and convention == 'fvcore')

    # -- what timm's tools ask for ------------------------------------------

    def get_classifier(self) -> nn.Module | tuple[nn.Module, nn.Module]:
        """The classifier; both of a distilled model."""
        if self.arch.dist_token:
            return self.head, self.head_dist
        return self.head

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
