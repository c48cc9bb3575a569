"""MACs and parameters of plain ViTs and of Swins, in closed form.

Every token method is asked for what its own layers cost. Products element by
element count for nothing in either convention: turning queries and keys by
rotary positions, gating hidden channels, activations, softmax.
"""

from mmvitcompress.tokens.grids import Grid, merged_grid
from mmvitcompress.tokens.spec import Counts


def vit_macs(
    arch,
    img_size: int | Grid,
    num_classes: int,
    depth: int,
    final_norm: bool,
    convention: str,
) -> int:
    """Multiply-accumulates; see :meth:`ViTArch.macs`."""
    norm = 5 if convention == 'fvcore' else 0
    prefix, dim = arch.num_prefix_tokens, arch.embed_dim
    counts = arch.counts(img_size)
    total = _stem_macs(arch, arch.grid(img_size), convention)
    left = counts[0].attention
    height, width = arch.grid(img_size)
    total += norm * dim * (height * width + prefix) * arch.pre_norm
    for layer in range(1, depth + 1):
        count = counts[layer - 1]
        total += _block_macs(arch, layer, count)
        total += norm * dim * (count.attention + count.mlp + 2 * prefix)
        total += norm * _inner_norms(arch, layer, count)
        for spec in arch.reductions:
            total += spec.macs(layer, count, arch, norm)
        left = count.left
    if final_norm:
        # of all that the last block returns: patches that leave after it
        # still have their features
        total += norm * dim * (left + prefix)
    heads = 1 + int(arch.dist_token)
    return total + heads * num_classes * dim


def _inner_norms(arch, layer: int, count: Counts) -> int:
    """Elements that the norms within attention and MLP see."""
    qk, v, mlp = arch.widths(layer)
    prefix = arch.num_prefix_tokens
    attended = 2 * qk * arch.qk_norm + v * arch.attn_norm
    attended *= arch.heads_in(layer)
    seen = (count.attention + prefix) * attended
    return seen + (count.mlp + prefix) * mlp * arch.mlp_norm


def _stem_macs(arch, grid: Grid, convention: str) -> int:
    patches = grid[0] * grid[1]
    if arch.stem == 'linear':
        inputs = arch.in_chans * arch.patch_size**2
        return patches * inputs * arch.embed_dim
    width = arch.stem_dim
    pixels = patches * (arch.patch_size // 2) ** 2
    convs = 49 * arch.in_chans * width + 2 * 9 * width**2
    norms = 3 * 2 * width if convention == 'fvcore' else 0
    return pixels * (convs + norms + width * arch.embed_dim)


def _block_macs(arch, layer: int, count: Counts) -> int:
    qk, v, mlp = arch.widths(layer)
    prefix, attended = arch.num_prefix_tokens, arch.heads_in(layer) * (qk + v)
    tokens = count.attention + prefix
    layers = arch.hidden_rows + 1
    linear = tokens * 2 * attended + (count.mlp + prefix) * layers * mlp
    windows = arch.windows(layer - 1, count.grid)
    if windows is None:
        pairs = tokens**2
    else:
        # whole windows and prefix tokens see one another; what a window is
        # padded with is computed, though attended to by no one
        (height, width), window = windows.padded(), windows.window
        pairs = height * width * (window[0] * window[1] + prefix)
        pairs += prefix * tokens
    return arch.embed_dim * linear + pairs * attended


def vit_params(arch, num_classes: int, depth: int, final_norm: bool) -> int:
    """Parameters; see :meth:`ViTArch.params`."""
    dim = arch.embed_dim
    total = _stem_params(arch) + dim * arch.num_prefix_tokens
    height, width = arch.pos_grid
    if arch.pos_embed != 'none':
        total += dim * height * width
    if arch.pos_embed == 'all':
        total += dim * arch.num_prefix_tokens
    for layer in range(1, depth + 1):
        qk, v, mlp = arch.widths(layer)
        heads = arch.heads_in(layer)
        attended, rows = heads * (qk + v), arch.hidden_rows * mlp
        total += dim * (2 * attended + rows + mlp) + rows + 2 * dim
        total += heads * (2 * qk + v) * arch.qkv_bias
        total += 2 * heads * v * arch.attn_norm
        total += 4 * dim + 2 * dim * arch.layer_scale + 2 * mlp * arch.mlp_norm
        total += 4 * qk * arch.qk_norm
        total += sum(spec.params(layer, arch) for spec in arch.reductions)
    total += 2 * dim * (final_norm + arch.pre_norm)
    heads = 1 + int(arch.dist_token)
    return total + heads * num_classes * (dim + 1) * bool(num_classes)


def _stem_params(arch) -> int:
    if arch.stem == 'linear':
        inputs = arch.in_chans * arch.patch_size**2
        return (inputs + arch.patch_bias) * arch.embed_dim
    width = arch.stem_dim
    convs = 49 * arch.in_chans * width + 2 * 9 * width**2
    inputs = width * (arch.patch_size // 2) ** 2
    proj = (inputs + arch.patch_bias) * arch.embed_dim
    return convs + 3 * 2 * width + proj


def swin_macs(
    arch,
    img_size: int | Grid,
    num_classes: int,
    stages: int,
    final_norm: bool,
    convention: str,
) -> int:
    """Multiply-accumulates; see :meth:`SwinArch.macs`."""
    norm = 5 if convention == 'fvcore' else 0
    grid = arch.grid(img_size)
    inputs = arch.in_chans * arch.patch_size**2
    total = grid[0] * grid[1] * arch.embed_dim * (inputs + norm)
    for stage, block, counts in arch.walk(img_size):
        if stage >= stages:
            break
        dim, tokens = arch.dims[stage], counts.mlp
        if stage and not block:  # tokens of half the width are put together
            height, width = merged_grid(grid, 'symmetric')
            total += height * width * 2 * dim * (dim + norm)
        grid = counts.grid
        for spec in arch.reductions_in(stage):
            total += spec.macs(block + 1, counts, arch, norm)
        total += _swin_block_macs(arch, stage, block, counts, norm)
    if final_norm:
        total += norm * tokens * dim
    return total + num_classes * dim


def _swin_block_macs(
    arch, stage: int, block: int, counts: Counts, norm: int
) -> int:
    dim, heads = arch.dims[stage], arch.num_heads[stage]
    qk, v, mlp = arch.widths(arch.layer(stage, block))
    reach = arch.reach(stage, block, counts.grid)
    normed = counts.attention + counts.mlp
    if reach is None:
        windows = arch.windows(counts.grid, bool(block % 2))
        padded = windows.padded()[0] * windows.padded()[1]
        keys = windows.window[0] * windows.window[1]
        attended = padded * (2 * dim + keys)
    else:
        tokens = counts.attention
        attended = (tokens + reach.keys) * dim + tokens * reach.seen
        normed += reach.others
    total = heads * (qk + v) * attended + counts.mlp * 2 * dim * mlp
    return total + norm * normed * dim


def swin_params(arch, num_classes: int, stages: int, final_norm: bool) -> int:
    """Parameters; see :meth:`SwinArch.params`."""
    dims = arch.dims[:stages]
    inputs = arch.in_chans * arch.patch_size**2
    total = (inputs + 3) * arch.embed_dim
    for dim in dims[1:]:
        total += 2 * dim * (2 + dim)
    for stage, dim in enumerate(dims):
        heads = arch.num_heads[stage]
        positions = (2 * arch.window_size - 1) ** 2 * heads
        for block in range(arch.depths[stage]):
            qk, v, mlp = arch.widths(arch.layer(stage, block))
            linear = dim * (2 * heads * (qk + v) + 2 * mlp) + 2 * dim + mlp
            biases = heads * (2 * qk + v) * arch.qkv_bias
            total += linear + biases + 4 * dim
            total += positions * arch.has_windows(stage, block)
            for spec in arch.reductions_in(stage):
                total += spec.params(block + 1, arch)
    return total + 2 * dims[-1] * final_norm + num_classes * (dims[-1] + 1)
