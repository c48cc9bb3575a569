"""What the [CLS] token looks at in the last block (CAIT, Fig. 8)."""

from collections.abc import Mapping, Sequence

import torch
from numpy import ndarray
from torch import Tensor, nn

from mmvitcompress.errors import ConfigError
from mmvitcompress.models.vit import ViT
from mmvitcompress.tokens import restore
from mmvitcompress.visualization.merges import token_sizes
from mmvitcompress.visualization.running import run_tokens
from mmvitcompress.visualization.style import (
    HEAT,
    Figure,
    PowerNorm,
    head_columns,
    panels,
    show_map,
    show_photo,
)

CAPTION = (
    'The share of its attention that the [CLS] token gives to each patch in '
    'the last block, the mean of all heads; where there is no [CLS] token, '
    'the mean over all patches. The attention that a merged token receives '
    'is divided equally among the patches that it covers, so that the shares '
    'of differently merged models can be compared; patches that have left '
    'receive none. Both maps of a row have one colour scale, which grows with '
    'the square root so that small shares are seen as well.'
)


def attention_weights(attn: nn.Module, x: Tensor, bias=None) -> Tensor:
    """softmax(Q Kᵀ · scale + bias) of an attention layer.

    Args:
        attn: An :class:`~mmvitcompress.models.layers.blocks.Attention`, with
            or without compactors.
        x: Its input (B, n, D).
        bias: What it adds to the logits. Defaults to None.

    Returns:
        (B, heads, n, n); rows sum to 1.
    """
    width = attn.num_heads * attn.qk_dim
    q, k = (
        part.unflatten(2, (attn.num_heads, -1)).transpose(1, 2)
        for part in attn.qkv(x)[..., : 2 * width].split(width, dim=2)
    )
    logits = q.float() @ k.float().transpose(2, 3) * attn.scale
    return (logits if bias is None else logits + bias).softmax(-1)


def attends_globally(backbone: nn.Module) -> bool:
    """Whether the last block is a plain ViT's that sees all tokens."""
    if not isinstance(backbone, ViT):
        return False
    windowed = backbone.windowed
    last = len(backbone.blocks) - 1
    return windowed is None or last in windowed.global_blocks


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
        ((_, state),) = run_tokens(backbone, images)
    finally:
        handle.remove()
    x, bias = (*inputs[0], None)[:2]
    weights = attention_weights(attn, x, bias)
    weights = weights.mean(1) if head is None else weights[:, head]
    prefix = backbone.num_prefix_tokens
    sizes = torch.from_numpy(token_sizes(state)).to(weights)  # (h·w)
    if prefix:
        received = weights[:, 0, prefix:]
    else:
        # patches, not tokens, have equal votes
        votes = sizes.expand(len(images), -1)
        if state.order is not None:
            votes = votes.gather(1, state.order)
        votes = votes[:, : weights.shape[1]]
        votes = votes / votes.sum(1, keepdim=True)
        received = (votes.unsqueeze(1) @ weights)[:, 0]
    # patches that have left get nothing
    fill = received.new_zeros(1)
    shares = restore(received.unsqueeze(2), state, 'nearest', fill)[:, 0]
    covered = sizes.view(1, -1, 1)
    return (
        shares
        / restore(covered, state._replace(order=None, departed=()))[:, 0]
    )


def draw_attention(
    pictures: Sequence[ndarray],
    maps: Mapping[str, Tensor],
    patch: int,
    title: str = '',
) -> Figure:
    """Draw attention maps side by side.

    Args:
        pictures: RGB (H, W, 3) of one size, uint8.
        maps: For each model its name and what :func:`class_attention` returns
            for the pictures.
        patch: Edge of a patch, in pixels.
        title: Title. Defaults to one that says what is seen.
    """
    size = pictures[0].shape[:2]
    figure, axes = panels(len(pictures), 1 + len(maps), size[0] / size[1])
    for row, picture in enumerate(pictures):
        show_photo(axes[row][0], picture)
        shares = [100 * m[row].float().cpu().numpy() for m in maps.values()]
        top = max(share.max() for share in shares)
        for axis, share in zip(axes[row][1:], shares):
            heat = show_map(
                *(axis, share, (*size, patch)),
                cmap=HEAT,
                norm=PowerNorm(0.5, 0, top),
            )
        figure.colorbar(heat, ax=axes[row][-1], label='% per patch')
    head_columns(axes, ['image', *maps])
    figure.suptitle(
        title or 'What the last block looks at: attention of [CLS]',
        fontsize=11,
    )
    return figure
