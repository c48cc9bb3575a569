"""Timing the parts of several models side by side.

Clocks drift: a processor heats up, other programs come and go. So all parts
of all models take turns run by run, in an order that is reversed every other
round, and each figure is the median over the rounds, with the extremes.
What compiling costs is told apart from what runs.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from mmvitcompress.analysis.inference import (
    data_samples,
    encoder_parts,
    run_network,
    split_neck,
)
from mmvitcompress.errors import ConfigError, UserError
from mmvitcompress.utils.checks import check_choice

TIMED_PARTS = ('backbone', 'neck', 'head', 'encoder', 'overall')
CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}
"""What time is told by on a CPU; 'cpu' is that of all threads of the process,
which other work on the machine hardly touches."""
Call = Callable[[], Any]


def time_calls(
    calls: Mapping[str, Mapping[str, Call]],
    device: torch.device,
    repeats: int = 20,
    warmup: int = 5,
    parts: Sequence[str] = TIMED_PARTS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, dict[str, dict[str, float]]]:
    """Time what :func:`part_calls` made of several models.

    To be called as what it calls: in evaluation under ``inference_mode``.

    Args:
        calls: By model and part what to call.
        device: Where the calls compute.
        repeats: Measured rounds. Defaults to 20.
        warmup: Rounds before them that are not measured. Defaults to 5.
        parts: Which parts to time. Defaults to all.
        clock: Seconds on the wall, for devices other than CUDA, which keeps
            time by its own events. Defaults to :func:`time.perf_counter`.

    Returns:
        By model and part ``{'median': ..., 'min': ..., 'max': ...}`` in
        milliseconds for the whole batch. A model without neck has no such
        entry.

    Raises:
        ConfigError: If a part is unknown or there is nothing to repeat.
    """
    for part in parts:
        check_choice('parts', part, TIMED_PARTS)
    if repeats < 1 or warmup < 0:
        raise ConfigError(
            'repeats must be at least 1 and warmup at least 0, but got '
            f'{repeats} and {warmup}'
        )
    stopwatch = _cuda_ms(device) if device.type == 'cuda' else _wall_ms(clock)
    runs = [(n, part) for part in parts for n in calls if part in calls[n]]
    taken: dict[tuple[str, str], list[float]] = {run: [] for run in runs}
    for turn in range(warmup + repeats):
        for name, part in runs[:: -1 if turn % 2 else 1]:
            taken[name, part].append(stopwatch(calls[name][part]))
    results: dict[str, dict[str, dict[str, float]]] = {n: {} for n in calls}
    for (name, part), times in taken.items():
        times = times[warmup:]
        results[name][part] = dict(
            median=median(times), min=min(times), max=max(times)
        )
    return results


def part_calls(
    model: nn.Module,
    inputs: Tensor,
    dtype: torch.dtype | None = None,
    transform: Callable[[Call], Call] | None = None,
) -> dict[str, Call]:
    """What to call in order to run each part of ``model``.

    Every part has a call of its own: ``encoder`` is the backbone and what of
    the neck restores and resamples its maps (an FPN does not belong to it),
    in one; ``overall`` the whole network. Neck and head are fed what the
    parts before them put out.

    To be made and called in evaluation under ``inference_mode``. Backbone and
    neck are run once, for what the parts behind them need.

    Args:
        model: Model on the device of ``inputs``.
        inputs: Images (B, 3, H, W), normalised and padded.
        dtype: If given, run under autocast to it. Defaults to None.
        transform: Applied to every call, such as ``torch.compile``. Defaults
            to None.

    Returns:
        Functions without arguments, by the names of ``TIMED_PARTS``; none
        for a part that the model does not have.
    """

    def prepared(call: Call) -> Call:
        call = call if transform is None else transform(call)
        if dtype is None:
            return call
        # an autocast of its own, as one step of a test loop
        return torch.autocast(inputs.device.type, dtype)(call)

    # describing the images is no part of the network
    samples = data_samples(model, inputs)
    calls = {'overall': prepared(lambda: run_network(model, inputs, samples))}
    backbone, neck = encoder_parts(model)
    if backbone is None:
        return calls
    calls['backbone'] = prepared(lambda: backbone(inputs))
    maps = calls['backbone']()
    recorded = {'backbone': _Recorded(maps)}
    calls['encoder'] = calls['backbone']
    if resampling := split_neck(model)[0]:
        pyramid = nn.Sequential(*resampling)
        calls['encoder'] = prepared(lambda: pyramid(backbone(inputs)))
    if neck is not None:
        calls['neck'] = prepared(lambda: neck(maps))
        recorded['neck'] = _Recorded(calls['neck']())
    # the same model, sharing everything but the encoder
    decoder = copy(model)
    decoder._modules = {**model._modules, **recorded}
    calls['head'] = prepared(lambda: run_network(decoder, inputs, samples))
    return calls


class _Recorded(nn.Module):
    """Stands in for a module by handing back what it once put out."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, *args: Any) -> Any:
        return self.output


def _wall_ms(clock: Callable[[], float]) -> Callable[[Call], float]:
    def measure(call: Call) -> float:
        start = clock()
        call()
        return 1000 * (clock() - start)

    return measure


def _cuda_ms(device: torch.device) -> Callable[[Call], float]:
    def measure(call: Call) -> float:
        with torch.cuda.device(device):
            start, end = (
                torch.cuda.Event(enable_timing=True) for _ in range(2)
            )
            torch.cuda.synchronize()
            start.record()
            call()
            end.record()
            end.synchronize()
            return start.elapsed_time(end)

    return measure


class Compiler:
    """``torch.compile`` for calls, which keeps account of what it costs.

    Args:
        backend: Of ``torch.compile``.

    Attributes:
        seconds: What the first runs of all calls took.
        graph_breaks: How often compiled graphs had to be left in them.
    """

    def __init__(self, backend: str = 'inductor') -> None:
        self.backend = backend
        self.seconds = 0.0
        self.graph_breaks = 0

    def __call__(self, call: Call) -> Call:
        """Compile ``call`` when it is first run.

        Raises:
            ConfigError: Then, if it can't be compiled.
        """
        compiled = torch.compile(call, backend=self.backend, dynamic=False)
        done = False

        def run() -> Any:
            nonlocal done
            if done:
                return compiled()
            done = True
            return self._first(compiled)

        return run

    def _first(self, compiled: Call) -> Any:
        breaks = torch._dynamo.utils.counters['graph_break']
        before, start = sum(breaks.values()), time.perf_counter()
        try:
            result = compiled()
        except UserError:
            raise
        except Exception as error:
            # the first line may only say which backend raised
            lines = ' '.join(str(error).strip().splitlines()[:2])
            raise ConfigError(
                f'torch.compile failed with {type(error).__name__}: {lines}; '
                'run without --compile'
            ) from error
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - start
        self.graph_breaks += sum(breaks.values()) - before
        return result


def every_shape_compiled() -> Any:
    """Without a limit past which torch would silently go on uncompiled."""
    return torch._dynamo.config.patch(
        recompile_limit=1024,
        accumulated_recompile_limit=4096,
        fail_on_recompile_limit_hit=True,
    )
