"""Which kernels serve a model's attention."""

from collections import Counter

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmvitcompress.analysis.inference import run_network
from mmvitcompress.analysis.macs import evaluating

# what the operators that torch runs say about attention
KERNELS = {
    '_scaled_dot_product_flash_attention': 'flash',
    '_scaled_dot_product_flash_attention_for_cpu': 'flash',
    '_scaled_dot_product_efficient_attention': 'memory-efficient',
    '_scaled_dot_product_cudnn_attention': 'cuDNN',
    '_scaled_dot_product_fused_attention_overrideable': 'of the device',
    '_native_multi_head_attention': 'nn.MultiheadAttention',
    '_safe_softmax': 'math',
    '_softmax': 'not fused',
}


def attention_kernels(
    model: nn.Module, images: Tensor, dtype: torch.dtype | None = None
) -> dict[str, int]:
    """Which kernels serve attention in the backbone, with their calls.

    Those that torch picks for these very shapes: 'flash', 'memory-efficient',
    'cuDNN', or 'math', which is several operators. An attention that is
    written without ``scaled_dot_product_attention`` is 'not fused'.
    """
    backbone = getattr(model, 'backbone', None)
    # inference mode would hide which kernel is picked
    with (
        evaluating(model),
        torch.no_grad(),
        torch.autocast(images.device.type, dtype, enabled=dtype is not None),
        _Kernels() as kernels,
    ):
        run_network(model, images) if backbone is None else backbone(images)
    return dict(kernels.calls)


class _Kernels(TorchDispatchMode):
    """Counts calls of attention kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kernel = KERNELS.get(func.overloadpacket.__name__)
        if kernel is not None:
            self.calls[kernel] += 1
        return func(*args, **(kwargs or {}))
