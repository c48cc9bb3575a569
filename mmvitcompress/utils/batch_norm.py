"""Batch norm by hand: of weighted positions, and over processes on any device.

Restoring hands a token back to all positions that it covers. A mean over the
restored map is thus a mean over the merged one in which each position counts
as often as it will be there: as often as the factors say, but less at the
border of an odd grid, which is cropped.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def uses_batch_statistics(norm: nn.Module) -> bool:
    """Whether a norm takes mean and variance from the batch that it gets."""
    return isinstance(norm, _BatchNorm) and (
        norm.training or norm.running_mean is None
    )


def batch_norm(
    x: Tensor, norm: _BatchNorm, cover: Tensor | None = None
) -> Tensor:
    """``norm`` of values, as if each of them stood there several times.

    Equals applying ``norm``, which is training, to the restored map and taking
    one of the copies of each position: output, gradients, running statistics
    and, for SyncBN, the sums over all processes.

    Args:
        x: Values (P, C) at all positions of a map.
        norm: Batch norm or SyncBN. Its running statistics are updated.
        cover: (P), how often each of them stands in the restored one.
            Defaults to once.

    Returns:
        (P, C), of the dtype of ``x``.
    """
    dtype = x.dtype
    if dtype in (torch.float16, torch.bfloat16):
        x = x.float()  # as the stock kernels sum up
    cover = x.new_ones(len(x)) if cover is None else cover.to(x.dtype)
    group = _group(norm)
    with torch.autocast(x.device.type, enabled=False):
        sums = torch.cat([cover @ x, cover.sum()[None]])
    sums = _sum_over(sums, group)
    mean, count = sums[:-1] / sums[-1], sums[-1].detach()
    # in two passes: the difference of two large sums would cancel
    x = x - mean
    with torch.autocast(x.device.type, enabled=False):
        squares = cover @ x.square()
    variance = _sum_over(squares, group) / count
    if norm.training and norm.track_running_stats:
        _update(norm, mean, variance * count / (count - 1))
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    x = x * scale
    if norm.bias is not None:
        x = x + norm.bias
    return x.to(dtype)


def _group(norm: _BatchNorm) -> dist.ProcessGroup | None:
    """The processes that a SyncBN in training shares statistics with."""
    if not (norm.training and hasattr(norm, 'process_group')):
        return None
    if not (dist.is_available() and dist.is_initialized()):
        return None
    group = norm.process_group or dist.group.WORLD
    return group if dist.get_world_size(group) > 1 else None


def _sum_over(x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Sum over processes; its gradient is that of all their losses."""
    if group is None:
        return x
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(x, group=group)


@torch.no_grad()
def _update(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    norm.num_batches_tracked.add_(1)
    # without a momentum: the mean over all batches so far
    momentum = norm.momentum
    if momentum is None:
        momentum = 1 / norm.num_batches_tracked.to(mean.dtype)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
    norm.running_var.lerp_(variance.to(norm.running_var.dtype), momentum)
