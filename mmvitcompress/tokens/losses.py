"""Auxiliary losses of token methods, on their way to whoever trains.

A net in training mode reports what its methods' ``losses`` say of a batch;
who trains collects it around the forward pass. Nothing is kept on a module,
and neither heads nor loops over batches need to know of it. What nobody
collects is not even computed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mmvitcompress.tokens.method import TokenMethod
from mmvitcompress.tokens.state import TokenState

# of each collection under way, the innermost last
_found: list[dict[str, Tensor]] = []


@contextmanager
def collect_losses() -> Iterator[dict[str, Tensor]]:
    """Collect auxiliary losses of all nets that run in training mode inside.

    For training loops of one's own::

        with collect_losses() as auxiliary:
            logits = model(images)
        loss = cross_entropy(logits, targets) + sum(auxiliary.values())

    Yields:
        Scalars by name, weighted, there once the forward pass is done.
    """
    _found.append(found := {})
    try:
        yield found
    finally:
        _found.pop()


def report_losses(methods: Sequence[TokenMethod], state: TokenState) -> None:
    """Hand on what methods say of a batch, given its last state.

    A net that runs several times adds up.
    """
    if not _found or not torch.is_grad_enabled():
        return
    for method in methods:
        for name, loss in method.losses(state).items():
            known = _found[-1].get(name)
            _found[-1][name] = loss if known is None else known + loss


def has_losses(model: nn.Module) -> bool:
    """Whether a token method of a model adds to the loss."""
    return any(
        type(module).losses is not TokenMethod.losses
        for module in model.modules()
        if isinstance(module, TokenMethod)
    )


def add_losses(model: nn.Module) -> list[RemovableHandle]:
    """Let a model that returns a dict of losses return auxiliary ones, too.

    They are named ``loss_…``, as MMEngine wants them, and a sole ``loss`` of
    the model becomes ``loss_task``.

    Returns:
        Handles that undo it.
    """

    def begin(module, args):
        _found.append({})

    def end(module, args, output):
        found = _found.pop()
        if isinstance(output, dict) and found:
            auxiliary = {f'loss_{name}': loss for name, loss in found.items()}
            # the log's ``loss`` is the sum of all
            names = {'loss': 'loss_task'}
            own = {names.get(k, k): loss for k, loss in output.items()}
            output = own | auxiliary
        return output

    return [
        model.register_forward_pre_hook(begin),
        model.register_forward_hook(end, always_call=True),
    ]
