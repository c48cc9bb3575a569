"""What one operator costs in multiply-accumulates (MACs).

The numbers follow fvcore 0.1.5 (``fvcore.nn.flop_count``), the counter that
papers on vision transformers quote: products are counted exactly and biases
not at all, normalisation and resampling by a few operations per element,
activations, softmax, pooling and everything else that is elementwise as
nothing. Fused attention, which fvcore does not know, costs what the same
attention costs written out as two products.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

Arguments = dict[str, Any]
Cost = Callable[[Arguments, Tensor], int]


def bind(schema, args: tuple, kwargs: dict) -> Arguments:
    """The arguments of an operator call by the names in its schema."""
    defaults = {a.name: a.default_value for a in schema.arguments}
    return {**defaults, **dict(zip(defaults, args)), **kwargs}


def _product(operand: str) -> Cost:
    """A product that contracts the last dimension of ``operand``."""
    return lambda given, out: out.numel() * given[operand].shape[-1]


def _addbmm(given: Arguments, out: Tensor) -> int:
    return given['batch1'].numel() * given['batch2'].shape[-1]


def _convolution(given: Arguments, out: Tensor) -> int:
    image = given['input'] if 'input' in given else given['self']
    weight = given['weight']
    moved_over = image if given.get('transposed', False) else out
    return image.shape[0] * weight.numel() * prod(moved_over.shape[2:])


def attention_macs(
    batch: int, queries: int, keys: int, width: int, value_width: int
) -> int:
    """MACs of ``softmax(Q K^T) V`` for ``batch`` images times heads, of
    ``width`` channels of Q and K in each and ``value_width`` of V."""
    return batch * queries * keys * (width + value_width)


def _attention(given: Arguments, out: Tensor) -> int:
    query, key, value = given['query'], given['key'], given['value']
    return attention_macs(
        # the output's heads: K and V may have fewer (grouped queries)
        prod(out.shape[:-2]),
        query.shape[-2],
        key.shape[-2],
        query.shape[-1],
        value.shape[-1],
    )


def _multihead_attention(given: Arguments, out: Tensor) -> int:
    """``nn.MultiheadAttention``'s fast path: projections included."""
    batch, queries, width = given['query'].shape
    keys = given['key'].shape[1]
    projections = batch * (2 * queries + 2 * keys) * width**2
    return projections + attention_macs(batch, queries, keys, width, width)


def _encoder_layer_products(given: Arguments, out: Tensor) -> int:
    """``nn.TransformerEncoderLayer``'s fast path, without its norms."""
    batch, tokens, width = given['src'].shape
    hidden = given['ffn_weight_1'].shape[0]
    projections = batch * tokens * width * (4 * width + 2 * hidden)
    return projections + attention_macs(batch, tokens, tokens, width, width)


def _encoder_layer(given: Arguments, out: Tensor) -> int:
    norms = 2 * 5 * given['src'].numel()
    return norms + _encoder_layer_products(given, out)


def _norm(given: Arguments, out: Tensor) -> int:
    return given['input'].numel() * (4 if given['weight'] is None else 5)


def _batch_norm(given: Arguments, out: Tensor) -> int:
    if given.get('training', False):
        return _norm(given, out)
    return given['input'].numel() * (1 if given['weight'] is None else 2)


def _per_output(macs: int) -> Cost:
    return lambda given, out: macs * out.numel()


def _per_input(given: Arguments, out: Tensor) -> int:
    return given['self'].numel()


def _nothing(*_: Any, **__: Any) -> int:
    return 0


def deformable_attention_macs(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    *_: Any,
    **__: Any,
) -> int:
    """MACs of multi-scale deformable attention without its projections.

    It samples ``levels * points`` places of each head's map bilinearly, four
    MACs per sampled element, as the form in plain torch does with
    ``grid_sample``. The weighted sum over the samples is elementwise.

    Args:
        value: (B, N, heads, head width).
        value_spatial_shapes: As MMCV's function takes it; not used.
        value_level_start_index: The same.
        sampling_locations: (B, Nq, heads, levels, points, 2).
    """
    return 4 * prod(sampling_locations.shape[:-1]) * value.shape[-1]


_MATMUL: dict[str, Cost] = {
    'linear': _product('weight'),
    'mkldnn_linear': _product('weight'),
    'mm': _product('self'),
    'bmm': _product('self'),
    'mv': _product('self'),
    'dot': _product('self'),
    'vdot': _product('self'),
    '_int_mm': _product('self'),
    '_scaled_mm': _product('self'),
    'addmm': _product('mat1'),
    '_addmm_activation': _product('mat1'),
    'addmv': _product('mat'),
    'baddbmm': _product('batch1'),
    'addbmm': _addbmm,
    'convolution': _convolution,
    '_convolution': _convolution,
    'convolution_overrideable': _convolution,
    'mkldnn_convolution': _convolution,
    'cudnn_convolution': _convolution,
    'miopen_convolution': _convolution,
    '_conv_depthwise2d': _convolution,
    'conv_depthwise3d': _convolution,
    'scaled_dot_product_attention': _attention,
    '_scaled_dot_product_flash_attention': _attention,
    '_scaled_dot_product_flash_attention_for_cpu': _attention,
    '_scaled_dot_product_efficient_attention': _attention,
    '_scaled_dot_product_cudnn_attention': _attention,
    '_scaled_dot_product_fused_attention_overrideable': _attention,
    '_scaled_dot_product_attention_math_for_mps': _attention,
    '_native_multi_head_attention': _multihead_attention,
    '_transformer_encoder_layer_fwd': _encoder_layer_products,
}

_FVCORE: dict[str, Cost] = {
    **_MATMUL,
    '_transformer_encoder_layer_fwd': _encoder_layer,
    'layer_norm': _norm,
    'native_layer_norm': _norm,
    'group_norm': _norm,
    'native_group_norm': _norm,
    'instance_norm': _norm,
    'batch_norm': _batch_norm,
    'native_batch_norm': _batch_norm,
    '_native_batch_norm_legit': _batch_norm,
    '_native_batch_norm_legit_no_training': _batch_norm,
    '_batch_norm_with_update': _norm,
    '_batch_norm_no_update': _batch_norm,
    'cudnn_batch_norm': _batch_norm,
    'miopen_batch_norm': _batch_norm,
    'upsample_nearest2d': _per_output(1),
    'upsample_bilinear2d': _per_output(4),
    'grid_sampler': _per_output(4),
    'grid_sampler_2d': _per_output(4),
    'grid_sampler_3d': _per_output(4),
    'cudnn_grid_sampler': _per_output(4),
    'adaptive_avg_pool2d': _per_input,
    '_adaptive_avg_pool2d': _per_input,
}

OPERATOR_COSTS: dict[str, dict[str, Cost]] = {
    'fvcore': _FVCORE,
    'matmul': {name: _MATMUL.get(name, _nothing) for name in _FVCORE},
}
"""Costs of the operators of ``aten`` by convention: what fvcore counts, or
only the products in it (linear layers, convolutions, attention)."""

EXTENSION_COSTS: dict[str, dict[str, Callable[..., int]]] = {
    'fvcore': {'ms_deform_attn_forward': deformable_attention_macs},
    'matmul': {'ms_deform_attn_forward': _nothing},
}
"""The same for MMCV's compiled functions, called with their arguments."""

_MAKE = """
    _to_copy arange bernoulli clone copy empty empty_like empty_permuted
    empty_strided fill full full_like lift_fresh_copy linspace native_dropout
    new_empty new_full new_ones new_zeros normal ones ones_like rand rand_like
    randint randn randn_like randperm scalar_tensor uniform zero zeros
    zeros_like
"""
_MOVE = """
    _local_scalar_dense _unsafe_index _unsafe_view _upsample_nearest_exact2d
    cat col2im constant_pad_nd detach embedding flip gather im2col index
    index_add index_copy index_fill index_put index_select masked_fill
    masked_scatter masked_select nonzero pixel_shuffle pixel_unshuffle
    reflection_pad1d reflection_pad2d repeat repeat_interleave
    replication_pad1d replication_pad2d resize roll rot90 scatter scatter_add
    scatter_reduce select_scatter slice_scatter split_with_sizes_copy stack
    tril triu upsample_nearest1d upsample_nearest3d
"""
_REDUCE = """
    _log_softmax _safe_softmax _softmax _unique2 adaptive_max_pool2d all amax
    amin any argmax argmin argsort avg_pool2d avg_pool3d bincount bucketize
    cummax cummin cumprod cumsum equal linalg_vector_norm logsumexp max
    max_pool2d_with_indices max_pool3d_with_indices mean median min norm prod
    searchsorted sort std std_mean sum topk unique_consecutive unique_dim var
    var_mean
"""
_POINTWISE = 'floor_divide hardswish'  # where PyTorch forgot the tag
_FREE = frozenset(f'{_MAKE} {_MOVE} {_REDUCE} {_POINTWISE}'.split())
_FREE_ELSEWHERE = frozenset(
    ('mmcv::nms', 'mmcv::nms_match', 'mmcv::softnms', 'torchvision::nms')
)


def is_free(namespace: str, name: str, tags: Sequence[torch.Tag] = ()) -> bool:
    """Whether an operator costs nothing by convention.

    Those are the pointwise ones, as PyTorch's tags say, and those that make,
    move, sort, pool or reduce; what is neither free nor priced is unknown.
    """
    if namespace != 'aten':
        return namespace == 'prim' or f'{namespace}::{name}' in _FREE_ELSEWHERE
    return torch.Tag.pointwise in tags or name.removesuffix('_') in _FREE
