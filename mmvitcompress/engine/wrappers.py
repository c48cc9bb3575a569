"""Models inside of what distributes or averages them; steps in bfloat16."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
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
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass in autocast."""
        device = next(model.parameters()).device.type
        autocast = torch.autocast(device, torch.bfloat16)
        with super().optim_context(model), autocast:
            yield
