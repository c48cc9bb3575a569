"""Training in bfloat16, on CPUs as well."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import autocast
from torch import nn

from mmvitcompress.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """An ``OptimWrapper`` whose forward passes run in bfloat16 autocast.

    Weights, gradients and the optimizer stay in float32. bfloat16 has the
    range of float32, so that no loss is scaled, which is what MMEngine's
    ``AmpOptimWrapper`` needs an accelerator for. CPUs with bfloat16
    instructions (AVX512_BF16, AMX) gain from it too.

    Args:
        **kwargs: As MMEngine's ``OptimWrapper``.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context of a forward pass, accumulation included."""
        with super().optim_context(model), autocast(dtype=torch.bfloat16):
            yield
