"""``torch.compile`` with an account of what it costs."""

import time
from typing import Any

import torch

from mmvitcompress.analysis.timing import Call
from mmvitcompress.errors import ConfigError, UserError


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
