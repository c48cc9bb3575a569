"""Models inside of what distributes or averages them; steps in bfloat16."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import torch
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from torch import nn

from mmvitcompress.registry import OPTIM_WRAPPERS


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, without the wrappers of distributed runs."""
    while is_model_wrapper(model):
        model = model.module
    return model


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Trains in bfloat16 where that is safe, on any device, CPUs included.

    Gradients need no scaling, as they do in MMEngine's ``AmpOptimWrapper``.
    A CPU without instructions for bfloat16 would emulate them, at forty times
    the time of float32 and more: there, training stays in float32, and the
    log says so.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass in autocast."""
        device = next(model.parameters()).device.type
        low = device != 'cpu' or self._cpu_has_bfloat16
        autocast = torch.autocast(device, torch.bfloat16, enabled=low)
        with super().optim_context(model), autocast:
            yield

    @cached_property
    def _cpu_has_bfloat16(self) -> bool:
        has = cpu_has_bfloat16()
        if not has:
            print_log(
                'this CPU has no bfloat16, training is in float32',
                'current',
                logging.WARNING,
            )
        return has


def cpu_has_bfloat16() -> bool:
    """Whether oneDNN multiplies matrices in bfloat16 here by instructions for
    it, or by wide ones that come near."""
    if not torch.backends.mkldnn.is_available():
        return False
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()
