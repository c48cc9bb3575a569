"""The memory that a run of a model needs, and the kernels that serve it."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from mmvitcompress.analysis.inference import evaluating, run_network

# what the figure means, by type of device
MEASURED = {
    'cuda': "weights, and the peak of PyTorch's CUDA allocator in one run",
    'cpu': "weights, and the peak of PyTorch's CPU allocator in one run, by "
    'the profiler; scratch space of libraries is not seen',
}

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


def peak_memory(
    call: Callable[[], Any], model: nn.Module, device: torch.device
) -> float | None:
    """Most memory that ``model`` and one run of it need on a device.

    Its own parameters and buffers count, and what the run allocates; what
    else lies on the device (other models, the images) does not.

    Args:
        call: Runs the model; called twice.
        model: The model.
        device: Where it computes.

    Returns:
        MiB; None on devices other than CUDA and the CPU.
    """
    measures = {'cuda': _cuda_peak, 'cpu': _cpu_peak}
    if device.type not in measures:
        return None
    own = sum(
        tensor.numel() * tensor.element_size()
        for tensor in (*model.parameters(), *model.buffers())
    )
    call()  # leave workspaces that are made once out of it
    return (own + measures[device.type](call, device)) / 2**20


def _cuda_peak(call: Callable[[], Any], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _cpu_peak(call: Callable[[], Any], device: torch.device) -> int:
    # without it the profiler reports its own starts and stops
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')
    activities = [ProfilerActivity.CPU]
    with profile(activities=activities, profile_memory=True) as profiler:
        call()
    return max(accumulate(_allocations(profiler)), default=0)


def _allocations(profiler: profile) -> Iterator[int]:
    """Bytes taken (positive) and freed (negative), in order."""
    with TemporaryDirectory() as folder:
        # the one public way to single allocations
        trace = Path(folder, 'trace.json')
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())['traceEvents']
    events = [event for event in events if event.get('name') == '[memory]']
    events.sort(key=lambda event: (event['ts'], event['args']['Ev Idx']))
    for event in events:
        yield event['args']['Bytes']


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
