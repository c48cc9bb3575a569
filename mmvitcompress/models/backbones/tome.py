"""A ViT that merges similar tokens (ToMe): what ATME is compared with."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.backbones.vit import CompressedViT
from mmvitcompress.registry import MODELS
from mmvitcompress.tokens.specs import Grid
from mmvitcompress.tokens.tome import (
    MatchState,
    TokenMatching,
    match,
    merge_pairs,
    size_bias,
    unmatch,
)


@MODELS.register_module()
class ToMeViT(CompressedViT):
    """A plain ViT whose similar tokens are merged by bipartite matching.

    The peer in comparisons with merging by place, on the same blocks and the
    same attention kernels. Merges stand before a block, as ATME's do, so that
    both can halve the tokens at the same depth; ToMe's own code merges between
    the attention and the MLP of a block.

    Args:
        arch: As of :class:`~mmvitcompress.models.CompressedViT`; one that
            merges or slims by itself is refused.
        img_size: See there; ``token_matching.macs_of`` is met at this size.
        token_matching: Arguments of
            :class:`~mmvitcompress.tokens.tome.TokenMatching`. Defaults to
            ToMe's way, all layers, at the MACs of the paper's merges before
            blocks 5 and 8.
        checkpoint: See there, as all that follow.
        out_indices: See there.
        out_type: See there.
        final_norm: See there.
        drop_path_rate: See there.
        frozen_stages: See there.
        norm_eval: See there.
        with_cp: See there.
        init_cfg: Must be None.

    Raises:
        ConfigError: If an argument is out of range.
        CheckpointError: If the checkpoint is missing, unsafe, damaged, or of
            another arch.
    """

    def __init__(
        self,
        arch: str | dict | ViTArch | None = None,
        img_size: int | Grid | None = None,
        token_matching: dict | TokenMatching | None = None,
        checkpoint: str | None = None,
        out_indices: Sequence[int] | None = None,
        out_type: str = 'featmap',
        final_norm: bool = False,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: None = None,
    ):
        super().__init__(
            arch,
            img_size=img_size,
            checkpoint=checkpoint,
            out_indices=out_indices,
            out_type=out_type,
            final_norm=final_norm,
            drop_path_rate=drop_path_rate,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        for name in ('token_merging', 'patch_slimming'):
            if getattr(self.arch, name) is not None:
                raise ConfigError(
                    f'ToMeViT has its own way to reduce tokens, but the arch '
                    f'has {name}: use CompressedViT, or an arch without it'
                )
        if token_matching is None:
            token_matching = dict(macs_of=dict(layers=(5, 8)))
        if not isinstance(token_matching, TokenMatching):
            token_matching = TokenMatching(**token_matching)
        self.token_matching = with_r(token_matching, self.arch)
        self.merged_before = self.token_matching.at(self.arch.depth)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W) → one output for each of ``out_indices``.

        Returns:
            Full maps (B, D, ⌈H/p⌉, ⌈W/p⌉), in which the patches of a merged
            token are equal; with ``out_type='raw'`` tokens
            (B, prefix + n, D).
        """
        prefix = self.num_prefix_tokens
        x, start = self.embed(x)
        state, keys, outputs = MatchState(start.full_grid), None, {}
        for index, block in enumerate(self.blocks):
            if index + 1 in self.merged_before:
                r = self.token_matching.removed(x.shape[1] - prefix)
                if r:  # else there are too few left
                    pairs = match(keys.mean(1)[:, prefix:], r)
                    x, state = merge_pairs(x, pairs, state, prefix)
            bias = None
            if self.token_matching.proportional:
                bias = size_bias(state, prefix)
            x, keys = self._run(block, x, bias, return_keys=True)
            if index in self.out_indices:
                outputs[index] = (x, state)
        return tuple([self._finish(*outputs[i]) for i in self.out_indices])

    def _finish(self, x: Tensor, state: MatchState) -> Tensor:
        if self.norm is not None:
            x = self.norm(x)
        if self.out_type == 'raw':
            return x
        return unmatch(x[:, self.num_prefix_tokens :], state)


def with_r(spec: TokenMatching, arch: ViTArch) -> TokenMatching:
    """The specification with its ``macs_of`` turned into an ``r``.

    Raises:
        ConfigError: If even merging half of the tokens at each layer costs
            more.
    """
    if spec.macs_of is None:
        return spec
    target = arch.replace(token_merging=spec.macs_of).macs()
    height, width = arch.pos_grid
    costs = {}
    for r in range(height * width // 2 + 1):
        tried = replace(spec, r=r, macs_of=None)
        costs[r] = tome_macs(arch, tried)
        if costs[r] <= target:
            break
    else:
        raise ConfigError(
            f'token_matching.layers {spec.layers} save less than the merges '
            f'of macs_of ({spec.macs_of}) even if half of the tokens merge at '
            'each of them: name more layers, or earlier ones'
        )
    nearest = min(costs, key=lambda r: abs(costs[r] - target))
    return replace(spec, r=nearest, macs_of=None)


def tome_macs(
    arch: ViTArch,
    spec: TokenMatching,
    img_size: int | Grid | None = None,
    depth: int | None = None,
    final_norm: bool = True,
    convention: str = 'fvcore',
) -> int:
    """Multiply-accumulates of a :class:`ToMeViT` for one image.

    Blocks at the tokens that they get, and the products of keys that are
    compared; moving tokens is free.

    Args:
        arch: Shape of its blocks, without merges of its own.
        spec: Where and how many tokens merge, with an ``r`` or half of them.
        img_size: As of :meth:`~mmvitcompress.arch.vit.ViTArch.macs`, as all
            that follow.
        depth: See there.
        final_norm: See there.
        convention: See there.
    """
    height, width = arch.grid(img_size or arch.img_size)
    patches = height * width
    per_norm = 5 * arch.embed_dim if convention == 'fvcore' else 0
    layers = spec.at(arch.depth)
    total = arch.macs(
        img_size, depth=0, final_norm=False, convention=convention
    )
    for layer in range(1, (depth or arch.depth) + 1):
        if layer in layers:
            compared = (patches - patches // 2) * (patches // 2)
            total += compared * arch.widths(layer - 1)[0]
            patches -= spec.removed(patches)
        tokens = patches + arch.num_prefix_tokens
        total += arch._block_macs(layer, tokens) + 2 * per_norm * tokens
    return total + per_norm * tokens * final_norm
