"""What models cost and how fast they run, side by side.

Everything is measured in one run, on the same images, the models taking turns
(see :mod:`mmvitcompress.analysis.timing`), so that ratios hold even where the
clock drifts. Beside each speedup stands the ratio of multiply-accumulates,
which it would reach if time followed work.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmvitcompress.analysis.complexity import model_complexity
from mmvitcompress.analysis.footprint import attention_kernels, peak_memory
from mmvitcompress.analysis.inference import evaluating
from mmvitcompress.analysis.timing import (
    TIMED_PARTS,
    Compiler,
    every_shape_compiled,
    part_calls,
    time_calls,
)
from mmvitcompress.errors import ConfigError
from mmvitcompress.utils.checks import check_choice

COMPARED = ('backbone', 'encoder', 'overall')
TIMED = {
    'backbone': ('backbone',),
    'encoder': ('backbone', 'encoder'),
    'overall': TIMED_PARTS,
}
"""What is timed, by how much of the models is asked for."""


def benchmark(
    models: Sequence[nn.Module],
    images: Tensor,
    shape: tuple[int, int],
    repeats: int = 20,
    warmup: int = 5,
    dtype: torch.dtype | None = None,
    compiler: str | None = None,
    clock: Callable[[], float] = time.perf_counter,
    part: str = 'overall',
) -> list[dict[str, Any]]:
    """Count and time models on the same images.

    Args:
        models: Classifiers, segmentors or detectors on the device of
            ``images``.
        images: (B, 3, H, W), normalised and padded.
        shape: Height and width before padding, for counting.
        repeats: Measured runs of each part. Defaults to 20.
        warmup: Runs before them. Defaults to 5.
        dtype: If given, run under autocast to it. Defaults to None.
        compiler: Backend of ``torch.compile``, such as ``'inductor'``.
            Defaults to None, which runs eagerly.
        clock: See :func:`~mmvitcompress.analysis.timing.time_calls`.
        part: How much of the models to time: ``'backbone'``, ``'encoder'``
            or, with neck and head as well, ``'overall'``, the default.

    Returns:
        For each model ``{backbone,neck,head,encoder,overall}_ms``, each
        ``{'median', 'min', 'max'}`` of the whole batch or None for a part
        that the model lacks or that is not timed; ``images_per_s`` of the
        network, None if it is not timed as a whole; ``peak_memory_mb`` of
        ``part`` in MiB, see
        :func:`~mmvitcompress.analysis.footprint.peak_memory`; ``macs`` and
        ``params`` of the network for one image; ``macs_by_part`` and
        ``params_by_part``, the encoder (backbone and pyramid) among them;
        ``attention_kernels``; with a compiler ``compile_s``, the first runs
        of all parts, and ``graph_breaks`` in them.

    Raises:
        ConfigError: If there is nothing to repeat, or a model can't be
            compiled or has no such part.
    """
    check_choice('part', part, [*TIMED])
    parts = TIMED[part]
    names = range(len(models))
    compilers = [Compiler(compiler) for _ in models] if compiler else []
    # counting runs each model once, uncompiled: its own errors come first
    rows = [
        {
            **costs(model, shape),
            'attention_kernels': attention_kernels(model, images, dtype),
        }
        for model in models
    ]
    with evaluating(*models), torch.inference_mode(), every_shape_compiled():
        calls = {
            name: part_calls(
                models[name],
                images,
                dtype,
                compilers[name] if compilers else None,
            )
            for name in names
        }
        if any(part not in own for own in calls.values()):
            raise ConfigError(
                f'a model without a backbone has no part {part!r}; time '
                "'overall'"
            )
        if compilers:  # compile before any clock runs
            for own in calls.values():
                for call in [own[p] for p in parts if p in own]:
                    call()
        times = time_calls(calls, images.device, repeats, warmup, parts, clock)
        memory = [
            peak_memory(calls[name][part], models[name], images.device)
            for name in names
        ]
    for name, row in enumerate(rows):
        row.update({f'{p}_ms': times[name].get(p) for p in TIMED_PARTS})
        overall = row['overall_ms']
        row['images_per_s'] = (
            overall and 1000 * len(images) / overall['median']
        )
        row['peak_memory_mb'] = memory[name]
        if compilers:
            row['compile_s'] = compilers[name].seconds
            row['graph_breaks'] = compilers[name].graph_breaks
    return rows


def speedup(row: Mapping, baseline: Mapping) -> dict[str, float | None]:
    """How many times faster than the baseline, and how much less work.

    Returns:
        ``backbone``, ``encoder`` and ``overall``: ratios of medians, None
        where nothing was timed;
        ``macs_ratio``: ratio of the MACs of the whole network.
    """
    times = {
        part: _ratio(baseline[f'{part}_ms'], row[f'{part}_ms'])
        for part in COMPARED
    }
    return {**times, 'macs_ratio': baseline['macs'] / row['macs']}


def macs_ratios(row: Mapping, baseline: Mapping) -> dict[str, float | None]:
    """The speedups that would be reached if time followed MACs."""

    own, other = row['macs_by_part'], baseline['macs_by_part']
    return {
        **{
            part: other[part] / own[part] if own[part] else None
            for part in ('backbone', 'encoder')
        },
        'overall': baseline['macs'] / row['macs'],
    }


def costs(model: nn.Module, shape: tuple[int, int]) -> dict[str, Any]:
    """MACs and parameters of a model and of its parts.

    Args:
        model: What is counted.
        shape: Height and width of one image, in pixels.

    Returns:
        ``macs`` and ``params`` of the network, ``macs_by_part`` and
        ``params_by_part``; the encoder is a part.
    """
    figures = model_complexity(model, shape)
    parts = {**figures['parts'], 'encoder': figures['encoder']}
    by_part = {
        f'{cost}_by_part': {part: own[cost] for part, own in parts.items()}
        for cost in ('macs', 'params')
    }
    return {**figures['total'], **by_part}


def _ratio(slow: Mapping | None, fast: Mapping | None) -> float | None:
    if slow is None or fast is None:
        return None
    return slow['median'] / fast['median']
