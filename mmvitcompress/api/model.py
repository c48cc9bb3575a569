"""The compressed model that people outside OpenMMLab work with."""

from collections.abc import Sequence

from torch import Tensor, nn

from mmvitcompress.checkpoints.fill import resize_pos_embed
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.classifier import Classifier
from mmvitcompress.tokens import restore
from mmvitcompress.utils.checks import check_choice, output_indices


def block_indices(
    indices: int | Sequence[int] | None, depth: int
) -> list[int]:
    """Blocks counted from 0, ascending, from what timm's callers say.

    Args:
        indices: Blocks, negative ones from the end; one number for so many of
            the last blocks; None for all.
        depth: How many there are.

    Raises:
        ConfigError: If one is out of range or named twice.
    """
    if indices is None:
        return list(range(depth))
    if not isinstance(indices, int):
        return sorted(output_indices(indices, depth, 'block'))
    if not 1 <= indices <= depth:
        raise ConfigError(
            f'indices must take 1 to {depth} of the last blocks, but got '
            f'{indices}'
        )
    return list(range(depth - indices, depth))


class CompressedModel(Classifier):
    """A compressed ViT with timm's calls.

    Arguments and what it computes are those of
    :class:`~mmvitcompress.models.classifier.Classifier`.

    Attributes:
        backbone: The :class:`~mmvitcompress.models.ViT`.
        pretrained_cfg: How images are to be prepared, as
            ``timm.data.resolve_model_data_config`` reads it.
        feature_error: What compressing with ``calibration`` left of error in
            the features, see
            :func:`~mmvitcompress.models.layers.features.feature_error`; None
            if it wasn't measured.
    """

    feature_error: dict[str, float] | None = None

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
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
        output_dict: bool = False,
        restore_mode: str = 'nearest',
    ) -> list | tuple[Tensor, list] | dict:
        """Features of several blocks, restored to the full patch grid.

        Merged tokens return to all positions that they cover, slimmed patches
        to their own with the feature that they left with.

        Args:
            x: Images (B, 3, H, W).
            indices: Blocks, counted from 0, negative ones from the end; one
                number takes so many of the last blocks. Defaults to all.
            return_prefix_tokens: Whether each output is a pair of a map and
                the prefix tokens (B, prefix, D), if there are any. Defaults
                to False.
            norm: Whether maps go through the final norm. Defaults to False.
            stop_early: Whether the first result is that of the last wanted
                block, and no further one runs. Defaults to False.
            output_fmt: 'NCHW' or 'NLC'. Defaults to 'NCHW'.
            intermediates_only: Whether to leave the first result out.
                Defaults to False.
            output_dict: Whether to return a dict of ``image_features`` (the
                first result), ``image_intermediates`` and, as
                ``image_intermediates_prefix``, prefix tokens. Defaults to
                False.
            restore_mode: How merges are undone, 'nearest' or 'bilinear'.
                Defaults to 'nearest'.

        Returns:
            The last block's tokens, as :meth:`forward_features` has them, and
            in the order of the blocks one map (B, D, ⌈H/p⌉, ⌈W/p⌉) or, as
            'NLC', (B, N, D) each.

        Raises:
            ConfigError: If an argument is out of range.
        """
        check_choice('output_fmt', output_fmt, ('NCHW', 'NLC'))
        depth = len(self.backbone.blocks)
        wanted = block_indices(indices, depth)
        early = stop_early or intermediates_only
        final = wanted[-1] if early else depth - 1
        *others, last = self.backbone(x, {*wanted, final})
        outputs = [*others, last] if wanted[-1] == final else others
        count, maps, prefixes = self.num_prefix_tokens, [], []
        for tokens, state in outputs:
            if norm:
                tokens, state = self.norm(tokens), state.apply(self.norm)
            features = restore(tokens[:, count:], state, restore_mode)
            if output_fmt == 'NLC':
                features = features.flatten(2).transpose(1, 2)
            maps.append(features)
            prefixes.append(tokens[:, :count])
        with_prefix = return_prefix_tokens and count > 0
        if output_dict:
            found = dict(image_intermediates=maps)
            if with_prefix:
                found['image_intermediates_prefix'] = prefixes
            if not intermediates_only:
                found['image_features'] = self.norm(last[0])
            return found
        if with_prefix:
            maps = list(zip(maps, prefixes))
        return maps if intermediates_only else (self.norm(last[0]), maps)

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_prefix_tokens: bool = False,
        norm: bool = False,
    ) -> list:
        """DINO's form of :meth:`forward_intermediates`: maps (B, D, H, W) if
        ``reshape``, else (B, N, D), of the last n or the named blocks."""
        return self.forward_intermediates(
            x,
            n,
            return_prefix_tokens,
            norm,
            output_fmt='NCHW' if reshape else 'NLC',
            intermediates_only=True,
        )

    def prune_intermediate_layers(
        self,
        indices: int | Sequence[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Cut away what features of some blocks don't need.

        Args:
            indices: As of :meth:`forward_intermediates`.
            prune_norm: Whether the final norm goes. Defaults to False.
            prune_head: Whether the classifier goes. Defaults to True.

        Returns:
            The blocks, counted from 0.
        """
        wanted = block_indices(indices, len(self.backbone.blocks))
        self.backbone.cut(wanted[-1] + 1)
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.fc_norm = nn.Identity()
            self.auxiliary = False
            self.reset_classifier(0)
        return wanted

    def set_input_size(
        self, img_size: int | tuple[int, int], patch_size: None = None
    ) -> None:
        """Make the position embedding for another image size (H, W), in
        pixels; patches stay as large as they are."""
        old = self.arch
        if patch_size not in (None, old.patch_size, (old.patch_size,) * 2):
            raise ConfigError(
                f'patches have {old.patch_size} px and stay so, but got '
                f'patch_size={patch_size}'
            )
        arch = old.replace(img_size=img_size)
        pos = self.backbone.pos_embed
        if pos is not None:
            tensors = {'pos_embed': pos.detach()}
            resize_pos_embed(tensors, old, arch)
            self.backbone.pos_embed = nn.Parameter(
                tensors['pos_embed'], pos.requires_grad
            )
        self.backbone.arch = arch
        size = (arch.in_chans, *arch.img_size)
        self.pretrained_cfg = {**self.pretrained_cfg, 'input_size': size}

    @property
    def default_cfg(self) -> dict:
        """timm's other name of ``pretrained_cfg``."""
        return self.pretrained_cfg

    @property
    def feature_info(self) -> list[dict]:
        """Where features of each block come from, as timm lists it."""
        return [
            dict(
                module=f'backbone.blocks.{index}',
                num_chs=self.embed_dim,
                reduction=self.arch.patch_size,
            )
            for index in range(len(self.backbone.blocks))
        ]

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
            img_size,
            self.num_classes,
            len(self.backbone.blocks),
            final,
            convention,
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
            r'patch_embed|norm_pre)'
        )
        last = (rf'^(?:{"|".join(rest)})', (99999,))
        return dict(stem=stem, blocks=[(block, None), last])
