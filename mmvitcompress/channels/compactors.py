"""CDCP's compactors (CAIT III-C, after ResRep): matrices that learn to vanish.

After W_Q, W_K, W_V (head by head) and W_1 stands a square matrix C, the
identity at the start: y = (x·W + b)·C. Column c of C is output channel c; once
it is zero the channel can be removed.

C is applied to the weights, not to the tokens: (x·W + b)·C = x·(W·C) + b·C.
Values and gradients of W, b and C are the same, for F·F·D MACs per step
instead of F·F for each token: less as soon as a batch holds more than D of
them (two images for DeiT-Small). Only ``attn.qkv`` and ``mlp.fc1`` are
exchanged, for linear layers that compose their weight first; all parameters
keep their names, so that a plain checkpoint lacks nothing but the compactors.

Of a gated MLP gate and value make one hidden channel. There C stands after
both, and is applied to the inputs of ``mlp.fc2``: W_2·C, of which column c
vanishes with column c of C. Nothing then sees channel c, gate or value.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvitcompress.errors import ConfigError

NAME = 'compactors'
"""What the names of all compactors' parameters and masks contain."""


class Kinds(NamedTuple):
    """One thing for each kind of channel of one block; arrays are (heads,
    width), the hidden layer's (1, width)."""

    q: Any
    k: Any
    v: Any
    mlp: Any


class Compactor(nn.Module):
    """The matrices C of one kind of channel in one block.

    One for each of the ``groups``: the heads, or the MLP as a whole.

    Attributes:
        weight: (groups, width, width), each Cᵀ, as ``nn.Linear`` keeps its
            weight: *row* c is column c of C.
        kept: (groups, width), whether the mask m_c of a channel is 1.
    """

    def __init__(self, groups: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(width).repeat(groups, 1, 1))
        kept = torch.ones(groups, width, dtype=torch.bool)
        self.register_buffer('kept', kept)

    def forward(self, x: Tensor) -> Tensor:
        """Compose with rows of a weight: (groups · width, n) → the same."""
        groups, width = self.kept.shape
        return (self.weight @ x.reshape(groups, width, -1)).flatten(0, 1)

    def norms(self) -> Tensor:
        """Scores s_c = ‖C[:, c]‖₂, (groups, width)."""
        return torch.linalg.vector_norm(self.weight, dim=2)

    def extra_repr(self) -> str:
        return 'groups={}, width={}'.format(*self.kept.shape)


class CompactedLinear(nn.Linear):
    """A linear layer, whose parameters are taken over, and its compactors.

    ``sizes`` are groups and width of each kind, in the order of its rows, or
    of its columns if compactors are applied to its ``inputs``.
    """

    def __init__(
        self,
        linear: nn.Linear,
        sizes: dict[str, tuple[int, int]],
        inputs: bool = False,
    ):
        bias = linear.bias is not None
        super().__init__(
            linear.in_features, linear.out_features, bias, device='meta'
        )
        self.weight, self.bias = linear.weight, linear.bias
        compactors = {kind: Compactor(*size) for kind, size in sizes.items()}
        self.add_module(NAME, nn.ModuleDict(compactors).to(linear.weight))
        self.rows = [groups * width for groups, width in sizes.values()]
        self.inputs = inputs

    def composed(self) -> tuple[Tensor, Tensor | None]:
        """Weight (out, in) and bias (out) of the layer with its compactors."""
        bias = self.bias
        if self.inputs:
            return self._compose(self.weight.T).T, bias
        bias = None if bias is None else self._compose(bias).flatten()
        return self._compose(self.weight), bias

    def _compose(self, x: Tensor) -> Tensor:
        parts = zip(self.compactors.values(), x.split(self.rows))
        parts = [compactor(part) for compactor, part in parts]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, *self.composed())


def gated(mlp: nn.Module) -> bool:
    """Whether an MLP's ``fc1`` makes gates as well as values."""
    return mlp.fc1.out_features > mlp.fc2.in_features


def transformer_blocks(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules of all blocks that CDCP prunes, in forward order."""
    for name, module in model.named_modules():
        attn, mlp = (getattr(module, key, None) for key in ('attn', 'mlp'))
        if hasattr(attn, 'qkv') and hasattr(mlp, 'fc1'):
            yield name, module


def attach_compactors(model: nn.Module) -> list[Kinds]:
    """Put compactors into every transformer block of a model, in place.

    They are identities: the model's output doesn't change.

    Blocks have ``attn.qkv`` (rows [Q | K | V], each head by head),
    ``attn.num_heads``, ``attn.qk_dim``, ``attn.v_dim``, ``mlp.fc1`` and
    ``mlp.fc2``.

    Returns:
        The compactors of each block.

    Raises:
        ConfigError: If there are no such blocks, or compactors already.
    """
    if find_compactors(model):
        raise ConfigError('the model already has compactors; fold them first')
    for _, block in transformer_blocks(model):
        attn, mlp = block.attn, block.mlp
        qk = (attn.num_heads, attn.qk_dim)
        sizes = dict(q=qk, k=qk, v=(attn.num_heads, attn.v_dim))
        attn.qkv = CompactedLinear(attn.qkv, sizes)
        hidden = dict(mlp=(1, mlp.fc2.in_features))
        if gated(mlp):
            mlp.fc2 = CompactedLinear(mlp.fc2, hidden, inputs=True)
        else:
            mlp.fc1 = CompactedLinear(mlp.fc1, hidden)
    compactors = find_compactors(model)
    if not compactors:
        raise ConfigError(
            f'{type(model).__name__} has no transformer blocks with attn.qkv '
            'and mlp.fc1 to put compactors into'
        )
    return compactors


def find_compactors(model: nn.Module) -> list[Kinds]:
    """The compactors of each block; an empty list if none are attached."""
    found = []
    for _, block in transformer_blocks(model):
        mlp = block.mlp
        inner = mlp.fc2 if gated(mlp) else mlp.fc1
        if isinstance(inner, CompactedLinear):
            found.append(
                Kinds(**block.attn.qkv.compactors, **inner.compactors)
            )
    return found


def is_compactor(name: str) -> bool:
    """Whether a parameter or buffer of this name belongs to a compactor."""
    return NAME in name.split('.')


@torch.no_grad()
def apply_penalty_(compactors: Iterable[Kinds], lam: float = 1e-5) -> None:
    """Turn the objective's gradient into CDCP's, in place (CAIT Eq. 2).

    grad C[:, c] = m_c · ∂L/∂C[:, c] + λ · C[:, c] / ‖C[:, c]‖₂: a masked
    channel feels the lasso only and decays; should it be kept again later, it
    recovers. A column of zeros feels no lasso.

    To be called once for each optimizer step, when the gradients are final
    and in true scale: after the last backward pass of an accumulation, DDP's
    all-reduce, AMP's unscaling and clipping. Nothing waits for the device.
    Compactors without a gradient (frozen ones) are left alone.
    """
    for compactor in each_kind(compactors):
        weight = compactor.weight
        if weight.grad is None:
            continue
        norms = compactor.norms()
        strength = torch.where(norms > 0, lam / norms, 0.0)
        # filled, not multiplied: an overflow (0 · inf) must not stay
        weight.grad.masked_fill_(~compactor.kept.unsqueeze(2), 0)
        weight.grad.addcmul_(weight, strength.unsqueeze(2))


@torch.no_grad()
def shrink_masked_(compactors: Iterable[Kinds], length: float) -> None:
    """Shorten masked columns, to zero in the end, in place.

    A proximal step of the lasso with a step size of its own, where m_c = 0:
    C[:, c] ← C[:, c] · max(0, 1 − length / ‖C[:, c]‖), ``length`` being a
    fraction of the initial length. Adam alone shortens them by about one
    learning rate per step, for which short runs have no time; a larger rate
    would shake the kept columns. The papers don't do this.
    """
    for compactor in each_kind(compactors):
        norms = compactor.norms()
        rest = torch.where(norms > length, 1 - length / norms, 0.0)
        rest = torch.where(compactor.kept, 1.0, rest)
        compactor.weight.mul_(rest.unsqueeze(2))


def each_kind(blocks: Iterable[Kinds]) -> list:
    """All parts of all blocks, in one list."""
    return [part for block in blocks for part in block]


@torch.no_grad()
def column_norms(compactors: Iterable[Kinds]) -> list[Kinds]:
    """Scores s_c of all channels as float64 arrays.

    Waits for the device, once: call it where masks are rebuilt or logged.
    """
    each = each_kind(compactors)
    flat = torch.cat([compactor.norms().flatten() for compactor in each])
    return _arrays(flat.double(), each)


def kept_channels(compactors: Iterable[Kinds]) -> list[Kinds]:
    """The masks as arrays of bool, True where a channel is kept."""
    each = each_kind(compactors)
    return _arrays(torch.cat([c.kept.flatten() for c in each]), each)


def _arrays(flat: Tensor, each: list[Compactor]) -> list[Kinds]:
    ends = np.cumsum([compactor.kept.numel() for compactor in each])
    parts = np.split(flat.cpu().numpy(), ends[:-1])
    parts = [p.reshape(c.kept.shape) for p, c in zip(parts, each)]
    return [Kinds(*parts[i : i + 4]) for i in range(0, len(parts), 4)]


@torch.no_grad()
def set_kept_(compactors: Iterable[Kinds], kept: Iterable[Kinds]) -> None:
    """Write masks, as the selection returns them, to the compactors."""
    for compactor, mask in zip(each_kind(compactors), each_kind(kept)):
        compactor.kept.copy_(torch.from_numpy(mask))
