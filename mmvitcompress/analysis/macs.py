"""Counting the multiply-accumulates (MACs) of a model by running it.

The model is executed once under a dispatch mode that sees every operator
with its tensors, so Python control flow, heads that depend on the data
(Mask2Former, RoI heads) and modules that are used more than once are counted
as they run, and fused attention is counted whichever kernel serves it.
Nothing is traced or exported.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from inspect import isroutine
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from mmvitcompress.analysis.inference import evaluating
from mmvitcompress.analysis.operators import (
    EXTENSION_COSTS,
    OPERATOR_COSTS,
    bind,
    is_free,
)
from mmvitcompress.utils.checks import check_choice

Parts = Mapping[str, nn.Module | Sequence[nn.Module] | None]


@dataclass(frozen=True)
class MacCount:
    """The MACs of one run.

    Attributes:
        total: MACs of the whole run: the sum over ``parts``.
        parts: MACs by part, the remainder included.
        operators: MACs by operator, as ``{'linear': ...}``.
        uncounted: Calls of operators that may cost something, but that the
            convention neither prices nor calls free.
        convention: ``'fvcore'`` or ``'matmul'``.
    """

    total: int
    parts: dict[str, int]
    operators: dict[str, int]
    uncounted: dict[str, int]
    convention: str


def count_macs(
    model: nn.Module | Callable[..., Any],
    *args: Any,
    parts: Parts | None = None,
    rest: str = 'other',
    convention: str = 'fvcore',
    **kwargs: Any,
) -> MacCount:
    """Count the MACs of ``model(*args, **kwargs)``.

    A module is switched to evaluation for the run and put back afterwards; a
    function is run as it is. No gradients are recorded.

    Args:
        model: Module or function to run.
        *args: Its positional arguments, tensors on any device.
        parts: Modules by the part that they belong to. An operator belongs
            to the innermost of them that is being called; one part may own
            several modules.
        rest: The part that gets all operators outside of ``parts``.
            Defaults to ``'other'``.
        convention: ``'fvcore'``, or ``'matmul'`` for linear layers,
            convolutions and attention alone. Defaults to ``'fvcore'``.
        **kwargs: Keyword arguments of the run.

    Raises:
        ConfigError: If the convention is unknown.
    """
    check_choice('convention', convention, [*OPERATOR_COSTS])
    counter = _Counter(convention, rest)
    with ExitStack() as stack:
        if isinstance(model, nn.Module):
            stack.enter_context(evaluating(model))
        for name, module in _flat(parts):
            stack.enter_context(counter.attribute(module, name))
        stack.enter_context(counter.watch_extension())
        stack.enter_context(torch.no_grad())
        # Below autograd the mode meets operators as they were called
        # (adaptive_avg_pool2d, scaled_dot_product_attention) rather than
        # what autograd makes of them on this device (mean, a fused kernel
        # with padded heads). inference_mode would do the same, but taint
        # every tensor that a module caches for later training.
        stack.enter_context(torch._C._AutoDispatchBelowAutograd())
        stack.enter_context(counter)
        model(*args, **kwargs)
    by_part = dict.fromkeys([*(parts or {}), rest], 0)
    by_part.update(counter.by_part)
    return MacCount(
        total=sum(by_part.values()),
        parts=by_part,
        operators=dict(counter.by_operator.most_common()),
        uncounted=dict(counter.uncounted.most_common()),
        convention=convention,
    )


def count_params(
    model: nn.Module,
    parts: Parts | None = None,
    rest: str = 'other',
    exclude: Sequence[nn.Module] = (),
) -> dict[str, int]:
    """Count parameters by part, as of :func:`count_macs`.

    A parameter that is shared is counted once, for the first part that owns
    it, so that the parts add up to the model. Modules to ``exclude`` are left
    out, but for what they share with a part.
    """
    seen: set[Tensor] = set()
    counts = dict.fromkeys([*(parts or {}), rest], 0)

    def unseen(module: nn.Module) -> int:
        new = set(module.parameters()) - seen
        seen.update(new)
        return sum(parameter.numel() for parameter in new)

    for name, module in _flat(parts):
        counts[name] += unseen(module)
    left_out = {id(p) for module in exclude for p in module.parameters()}
    kept = (p for m in model.modules() for p in m.parameters(recurse=False))
    others = {p for p in kept if p not in seen and id(p) not in left_out}
    counts[rest] += sum(parameter.numel() for parameter in others)
    return counts


def _flat(parts: Parts | None) -> Iterator[tuple[str, nn.Module]]:
    for name, modules in (parts or {}).items():
        if isinstance(modules, nn.Module):
            yield name, modules
        else:
            yield from ((name, module) for module in modules or ())


class _Counter(TorchDispatchMode):
    """Adds up the costs of the operators that pass through it."""

    def __init__(self, convention: str, rest: str) -> None:
        super().__init__()
        self.costs = OPERATOR_COSTS[convention]
        self.extension_costs = EXTENSION_COSTS[convention]
        self.running = [rest]
        self.silent = False
        self.by_part: Counter[str] = Counter()
        self.by_operator: Counter[str] = Counter()
        self.uncounted: Counter[str] = Counter()
        # tensors with columns of zeros by those without
        self.narrower = WeakTensorKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._overloadpacket.__name__
        cost = self.costs.get(name) if func.namespace == 'aten' else None
        if cost is None and _is_composite(func):
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if name == 'constant_pad_nd' and out.shape[:-1] == args[0].shape[:-1]:
            self.narrower[out] = args[0]
        if cost is not None:
            first = out[0] if isinstance(out, tuple | list) else out
            given = bind(func._schema, args, kwargs)
            self.add(name, cost(self._unpadded(given), first))
        elif not func.is_view:
            self.leave_out(func.namespace, name, _tags(func))
        return out

    def _unpadded(self, given: dict[str, Any]) -> dict[str, Any]:
        """Q, K and V without the zeros that give them one width: kernels want
        those, the model doesn't."""
        own = {
            name: self.narrower.get(given[name], given[name])
            for name in ('query', 'key', 'value')
            if isinstance(given.get(name), Tensor)
        }
        return {**given, **own}

    def add(self, name: str, macs: int) -> None:
        if macs and not self.silent:
            self.by_part[self.running[-1]] += macs
            self.by_operator[name] += macs

    def leave_out(self, namespace: str, name: str, tags=()) -> None:
        if not self.silent and not is_free(namespace, name, tags):
            self.uncounted[f'{namespace}::{name}'] += 1

    @contextmanager
    def attribute(self, module: nn.Module, part: str) -> Iterator[None]:
        """Book what ``module`` runs under ``part``."""

        def enter(*_: Any) -> None:
            self.running.append(part)

        def leave(*_: Any) -> None:
            self.running.pop()

        handles = (
            module.register_forward_pre_hook(enter, prepend=True),
            module.register_forward_hook(leave, always_call=True),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def watch_extension(self) -> Iterator[None]:
        """Count calls of MMCV's compiled functions as one operator each.

        They are plain functions outside of PyTorch's dispatcher, and what
        they launch, or what a stand-in runs instead, is their own affair.
        """
        extension = sys.modules.get('mmcv._ext')
        functions = {
            name: function
            for name, function in getattr(extension, '__dict__', {}).items()
            if isroutine(function) and not name.startswith('_')
        }
        for name, function in functions.items():
            setattr(extension, name, self._counted(name, function))
        try:
            yield
        finally:
            for name, function in functions.items():
                setattr(extension, name, function)

    def _counted(self, name: str, function: Callable) -> Callable:
        cost = self.extension_costs.get(name)

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if cost is None:
                self.leave_out('mmcv', name)
            else:
                self.add(name, cost(*args, **kwargs))
            outer, self.silent = self.silent, True
            try:
                return function(*args, **kwargs)
            finally:
                self.silent = outer

        return call


def _tags(func: torch._ops.OpOverload) -> list[torch.Tag]:
    """Tags of ``func``, or of its twin if it works in place."""
    twin = getattr(
        torch.ops.aten, func._overloadpacket.__name__.removesuffix('_'), None
    )
    twin = getattr(twin, func._overloadname, func)
    return [*func.tags, *twin.tags]


def _is_composite(func: torch._ops.OpOverload) -> bool:
    """Whether ``func`` is made of other operators, by definition."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(
        func.name(), 'CompositeImplicitAutograd'
    )
