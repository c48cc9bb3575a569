"""Ways to run a model on a card: precisions, compiled, as CUDA graphs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmvitcompress.analysis.inference import evaluating
from mmvitcompress.analysis.timing import (
    Call,
    Compiler,
    every_shape_compiled,
    part_calls,
    time_calls,
)
from mmvitcompress.errors import ConfigError


class Precision(NamedTuple):
    """What products are computed in."""

    autocast: torch.dtype | None = None
    tf32: bool = False


ARITHMETIC = {
    'float32': Precision(),
    'tf32': Precision(tf32=True),
    'bf16': Precision(torch.bfloat16),
    'fp16': Precision(torch.float16),
}
MODES = ('eager', 'compiled', 'CUDA graphs')


@contextmanager
def arithmetic(name: str) -> Iterator[torch.dtype | None]:
    """Compute in one of :data:`ARITHMETIC`; yields autocast's dtype."""
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    precision = ARITHMETIC[name]
    try:
        for backend in backends:
            backend.allow_tf32 = precision.tf32
        yield precision.autocast
    finally:
        for backend, value in zip(backends, before):
            backend.allow_tf32 = value


class CudaGraph:
    """A call that is captured when it is first run, and then replayed.

    Args:
        call: Without arguments, of fixed inputs.
    """

    def __init__(self, call: Call):
        self.call = call
        self.graph = None
        self.output: Any = None

    def __call__(self) -> Any:
        """What the call returns; the next one writes it anew."""
        if self.graph is None:
            self._capture()
        self.graph.replay()
        return self.output

    def _capture(self) -> None:
        # libraries make their workspaces before, on a stream of their own
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.output = self.call()
        self.graph = graph


def transform_of(
    mode: str, device: torch.device, compiler: str
) -> Callable | None:
    """What makes a call run in one of :data:`MODES`.

    Raises:
        ConfigError: For CUDA graphs on another device.
    """
    if mode == 'compiled':
        return Compiler(compiler)
    if mode == 'CUDA graphs':
        if device.type != 'cuda':
            raise ConfigError('CUDA graphs need a CUDA device')
        return CudaGraph
    return None


def timed(
    models: Mapping[str, nn.Module],
    images: Tensor,
    parts: Sequence[str],
    precision: str = 'float32',
    mode: str = 'eager',
    repeats: int = 20,
    warmup: int = 3,
    compiler: str = 'inductor',
) -> dict[str, dict[str, dict[str, float]]]:
    """Time parts of models in turns.

    Args:
        models: By name, on the device of ``images``.
        images: (B, C, H, W).
        parts: Of :data:`~mmvitcompress.analysis.timing.TIMED_PARTS`.
        precision: One of :data:`ARITHMETIC`.
        mode: One of :data:`MODES`.
        repeats: Measured rounds.
        warmup: Rounds before them, after what is compiled or captured.
        compiler: Backend of ``torch.compile``.

    Returns:
        As :func:`~mmvitcompress.analysis.timing.time_calls` does.
    """
    device = images.device
    transform = transform_of(mode, device, compiler)
    with (
        arithmetic(precision) as dtype,
        evaluating(*models.values()),
        torch.inference_mode(),
        every_shape_compiled(),
    ):
        calls = {
            name: part_calls(model, images, dtype, transform)
            for name, model in models.items()
        }
        for own in calls.values():
            for part in parts:
                if part in own:
                    own[part]()
        return time_calls(calls, device, repeats, warmup, parts)
