"""What the [CLS] token looks at in the last block (CAIT, Fig. 8)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from matplotlib.colors import PowerNorm
from numpy import ndarray
from torch import Tensor, nn

from mmvitcompress.errors import ConfigError
from mmvitcompress.models.layers.rotary import Turns, turned
from mmvitcompress.models.vit import ViT
from mmvitcompress.visualization import base, style
from mmvitcompress.visualization.loading import attended_tokens, token_map


def attention_weights(
    attn: nn.Module,
    x: Tensor,
    bias: Tensor | None = None,
    queries: slice = slice(None),
    turns: Turns | None = None,
) -> Tensor:
    """softmax(Q Kᵀ · scale + bias) of an attention layer.

    Args:
        attn: An :class:`~mmvitcompress.models.layers.blocks.Attention`, with
            or without compactors.
        x: Its input (B, n, D).
        bias: What it adds to the logits of each key, (B, 1, 1, n). Defaults
            to None.
        queries: The tokens that look. Defaults to all.
        turns: Rotary positions of the tokens. Defaults to None.

    Returns:
        (B, heads, queries, n); rows sum to 1.
    """
    width = attn.num_heads * attn.qk_dim
    q, k = (
        part.unflatten(2, (attn.num_heads, -1)).transpose(1, 2)
        for part in attn.project(x)[..., : 2 * width].split(width, dim=2)
    )
    if turns is not None:
        q, k = (turned(part, turns, attn.rope_index) for part in (q, k))
    q = q[:, :, queries]
    logits = q.float() @ k.float().transpose(2, 3) * attn.scale
    return (logits if bias is None else logits + bias).softmax(-1)


def attends_globally(backbone: nn.Module) -> bool:
    """Whether the last block is a plain ViT's that sees all tokens."""
    if not isinstance(backbone, ViT):
        return False
    arch, last = backbone.arch, len(backbone.blocks) - 1
    return arch.window_size is None or last in arch.global_blocks


@torch.no_grad()
def class_attention(
    backbone: ViT, images: Tensor, head: int | None = None
) -> Tensor:
    """Attention that the patches of images receive in the last block.

    Args:
        backbone: A plain ViT of ours; run in evaluation mode.
        images: (B, 3, H, W), normalised.
        head: Which head, counted from 0. Defaults to the mean of all.

    Returns:
        (B, H, W) on the full patch grid: the [CLS] token's, or where there is
        none the mean over the patches'. With what prefix tokens receive it
        sums to 1.

    Raises:
        ConfigError: If the backbone is of another kind, its last block
            attends in windows, or it has no such head.
    """
    if not attends_globally(backbone):
        raise ConfigError(
            'the last block must see the whole image, as those of plain ViTs '
            'do (with backbone.window_size, those in global_blocks), but got '
            f'a {type(backbone).__name__} whose last block has windows'
        )
    attn = backbone.blocks[-1].attn
    if head is not None and not 0 <= head < attn.num_heads:
        raise ConfigError(
            f'head must lie in 0..{attn.num_heads - 1}, but got {head}'
        )
    inputs = []
    handle = attn.register_forward_pre_hook(
        lambda module, given: inputs.append(given)
    )
    try:
        output = attended_tokens(backbone, images)[-1]
    finally:
        handle.remove()
    x, bias, _, _, turns = inputs[0]
    prefix = backbone.num_prefix_tokens
    queries = slice(1) if prefix else slice(None)
    weights = attention_weights(attn, x, bias, queries, turns)
    weights = weights.mean(1) if head is None else weights[:, head]
    places = token_map(*output)  # (B, H, W)
    token = places.flatten(1).clamp_min(0)
    stays = (places >= 0).flatten(1).to(weights)
    covers = torch.zeros_like(weights[:, 0, prefix:])  # patches of each token
    covers.scatter_add_(1, token, stays)
    # without [CLS], patches, not tokens, have equal votes
    votes = covers / covers.sum(1, keepdim=True)
    looks = weights if prefix else votes.unsqueeze(1) @ weights
    # patches that have left get nothing
    shares = (looks[:, 0, prefix:] / covers).gather(1, token) * stays
    return shares.view(places.shape)


def draw_attention(
    pictures: Sequence[ndarray],
    maps: Mapping[str, Sequence[Tensor]],
    patch: int,
    whose: str = 'attention of [CLS]',
    rows: Sequence[int] | None = None,
) -> style.Figure:
    """Draw attention maps side by side.

    Args:
        pictures: RGB (H, W, 3), uint8.
        maps: For each model its name and (H, W) for each picture, as
            :func:`class_attention` returns them.
        patch: Edge of a patch, in pixels.
        whose: Whose attention it is. Defaults to 'attention of [CLS]'.
        rows: Which of the pictures. Defaults to all.
    """

    def paint(panel, row):
        style.show_photo(panel[0], pictures[row])
        shares = [100 * m[row].float().cpu().numpy() for m in maps.values()]
        top = max(share.max() for share in shares)
        look = dict(cmap=style.HEAT, norm=PowerNorm(0.5, 0, top))
        for axis, share in zip(panel[1:], shares):
            size = pictures[row].shape
            heat = style.show_map(axis, share, size, patch, **look)
        panel[-1].figure.colorbar(heat, ax=panel[-1], label='% per patch')

    heads = ['image', *maps]
    title = f'What the last block looks at: {whose}'
    return style.draw_rows(pictures, rows, lambda row: heads, paint, title)


class ReceivedAttention(base.ModelKind):
    """What the last block looks at."""

    about = 'what the last block looks at, dense beside compressed'
    caption = (
        'The share of its attention that the [CLS] token gives to each patch '
        'in the last block, the mean of all heads; where there is no [CLS] '
        'token, the mean over all patches. The attention that a merged token '
        'receives is divided equally among the patches that it covers, so '
        'that the shares of differently merged models can be compared; '
        'patches that have left receive none. Both maps of a row have one '
        'colour scale, which grows with the square root so that small shares '
        'are seen as well.'
    )
    arguments: ClassVar = {
        **base.ModelKind.arguments,
        **base.DENSE,
        '--head': dict(**base.NUMBER, help='counted from 0, not the mean'),
    }
    draw = staticmethod(draw_attention)

    def shows(self, backbone) -> bool:
        """Tell whether the last block sees the whole image."""
        return attends_globally(backbone)

    def compute(self, models, head: int | None = None) -> tuple:
        """Compute each model's attention, of one head or the mean of all."""
        maps = {
            name: [class_attention(backbone, x[None], head)[0] for x in images]
            for name, (backbone, images) in models.items()
        }
        backbones = [seen.backbone for seen in models.values()]
        if all(each.num_prefix_tokens for each in backbones):
            who = 'attention of [CLS]'
        else:
            who = 'mean attention of all patches'
        which = 'mean of all heads' if head is None else f'head {head}'
        return maps, backbones[0].arch.patch_size, f'{who}, {which}'
