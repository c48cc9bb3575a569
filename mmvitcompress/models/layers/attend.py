"""Attention whose values may be of another width than queries and keys."""

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale · Q Kᵀ + bias) V, through a fused kernel where one is.

    PyTorch's fused kernel for CPUs and flash attention take Q, K and V of one
    width only; what else there is writes all n² weights to memory, several
    times. Columns of zeros change no number, so the narrower of them are
    filled up with zeros: a copy of n·d numbers instead.

    Args:
        q: Queries (B, h, n, d).
        k: Keys (B, h, m, d).
        v: Values (B, h, m, d').
        bias: Added to the logits; of a shape that broadcasts to (B, h, n, m).
            Defaults to None.
        scale: Softmax scale. Defaults to 1/√d.

    Returns:
        (B, h, n, d').
    """
    width, value_width = q.shape[-1], v.shape[-1]
    scale = width**-0.5 if scale is None else scale
    if width < value_width and _wants_one_width(q):
        q, k = (F.pad(x, (0, value_width - width)) for x in (q, k))
    elif width > value_width and _wants_one_width(q):
        v = F.pad(v, (0, width - value_width))
    x = F.scaled_dot_product_attention(q, k, v, bias, scale=scale)
    return x[..., :value_width]


def _wants_one_width(q: Tensor) -> bool:
    """Whether the kernels that would do best here need equal widths."""
    if torch.compiler.is_exporting():
        return False  # other runtimes have kernels of their own
    if q.device.type == 'cuda':
        # in single precision only the memory-efficient kernel is left, which
        # takes any widths
        return q.dtype in (torch.float16, torch.bfloat16)
    return q.device.type == 'cpu'
