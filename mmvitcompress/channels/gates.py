"""Compactors that only carry masks, and what their gradients tell.

For criteria that score channels while a model trains (S²ViTE, NViT, SAViT,
VTC-LFC) in place of compactors that learn to vanish. A compactor is then a
diagonal of ones and zeros, a gate g_c for each channel: y = (x·W + b)·diag(g).
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mmvitcompress.channels.compactors import Kinds, each_kind


@torch.no_grad()
def hold_(compactors: Iterable[Kinds]) -> None:
    """Make compactors the gates that their masks say, in place."""
    for compactor in each_kind(compactors):
        gates = compactor.kept.to(compactor.weight.dtype)
        compactor.weight.copy_(torch.diag_embed(gates))


def are_gates(compactors: Iterable[Kinds]) -> bool:
    """Whether compactors are as :func:`hold_` leaves them; waits for the
    device."""
    return all(
        torch.equal(part.weight, torch.diag_embed(part.kept.to(part.weight)))
        for part in each_kind(compactors)
    )


class GateScores(nn.Module):
    """How much a loss changes with each gate: running means of (∂L/∂g)².

    Molchanov et al. (CVPR 2019), Eq. 8: to first order, closing the gate of a
    channel with the weights w changes the loss by ∂L/∂g = Σ w·∂L/∂w, over
    its column of W_Q, W_K, W_V or W_1 and the bias. A closed gate of V or of
    the MLP has such a derivative as well, of what the channel would change if
    it came back. Q's and K's have none while both are closed, since each is
    multiplied by the other: such a channel hardly comes back.

    Args:
        compactors: As :func:`hold_` leaves them.
        memory: What of the mean stays when the next is added, in [0, 1).
            Defaults to 0.99.
    """

    def __init__(self, compactors: Sequence[Kinds], memory: float = 0.99):
        super().__init__()
        self.memory = memory
        masks = [compactor.kept for compactor in each_kind(compactors)]
        for index, mask in enumerate(masks):
            mean = torch.zeros_like(mask, dtype=torch.float32)
            self.register_buffer(str(index), mean)
        # how much of the mean has been filled
        self.register_buffer('filled', masks[0].new_zeros((), dtype=float))

    @torch.no_grad()
    def add(self, gradients: Sequence[Tensor]) -> None:
        """Add a batch: gradients of all compactors' weights.

        Nothing waits for the device.
        """
        weight = 1 - self.memory
        for index, gradient in enumerate(gradients):
            mean = self.get_buffer(str(index))
            gates = gradient.diagonal(dim1=1, dim2=2).to(mean.dtype)
            mean.lerp_(gates.square(), weight)
        self.filled.lerp_(torch.ones_like(self.filled), weight)

    @torch.no_grad()
    def scores(self) -> list[Kinds]:
        """Scores of all channels as float64 arrays; waits for the device."""
        filled = float(self.filled) or 1.0
        parts = [
            np.asarray(self.get_buffer(str(index)).double().cpu()) / filled
            for index in range(len(self._buffers) - 1)
        ]
        return [Kinds(*parts[i : i + 4]) for i in range(0, len(parts), 4)]
