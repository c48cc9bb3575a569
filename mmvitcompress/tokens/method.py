"""What reduces tokens while blocks run: the module that a spec builds."""

from typing import NamedTuple

from torch import Tensor, nn

from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens.state import TokenState


class Attended:
    """What an attention saw, for token methods that ask.

    ``q`` and ``k`` (B, h, n, d) are views into the projection, or, where
    positions are rotary, what these were turned into; ``bias`` was added to
    the logits, unless it is None.
    """

    def __init__(self, q: Tensor, k: Tensor, scale: float, bias=None):
        self._q, self._k, self._scale, self._bias = q, k, scale, bias

    def keys(self) -> Tensor:
        """The keys (B, h, n, d)."""
        return self._k

    def class_row(self, num_prefix: int) -> Tensor:
        """How much [CLS] attends to each token, (B, h, n).

        The softmax of one query's logits, for n·d multiply-accumulates a
        head: the n×n weights are never made. Where there is no prefix token
        (of which [CLS] is the first) the mean query of all patches stands for
        it.
        """
        query = self._q[:, :, :1]
        if not num_prefix:
            query = self._q.mean(2, keepdim=True)
        logits = (query @ self._k.transpose(2, 3)) * self._scale
        if self._bias is not None:
            logits = logits + self._bias
        return logits.float().softmax(-1).squeeze(2)


class Attending(NamedTuple):
    """How the tokens (B, n, D) of a block attend, instead of in windows.

    All of it goes through the block's own norms and projections.

    Attributes:
        others: Tokens (B, m, D) that are attended to, too; None for none.
        own: Whether the tokens are attended to themselves, as the first of
            the keys.
        index: (G, K): the tokens are G groups of equal size, one after the
            other, of which each attends to its K of the keys; None if all
            attend to all.
        scales: (2, D), by which what attention and MLP add is multiplied.
    """

    others: Tensor | None
    own: bool
    index: Tensor | None
    scales: Tensor


class TokenMethod(nn.Module):
    """Reduces tokens while blocks run.

    Nothing is kept on the module: what happened is recorded in the state that
    is handed on. All hooks are optional.

    Args:
        num_prefix: Tokens before the patches, which stay as they are.

    Attributes:
        within: Blocks, counted from 1, that :meth:`between` is called in.
        spec: What it was built from, where it keeps that.
    """

    within: frozenset[int] = frozenset()
    spec = None

    def __init__(self, num_prefix: int):
        super().__init__()
        self.num_prefix = num_prefix

    def before(
        self, layer: int, x: Tensor, state: TokenState
    ) -> tuple[Tensor, TokenState]:
        """Reduce the tokens (B, prefix + n, D) before block ``layer``."""
        return x, state

    def bias(self, layer: int, state: TokenState) -> Tensor | None:
        """What to add to the attention logits of block ``layer``.

        Returns:
            (B, 1, 1, prefix + n), one number for each key, or None.
        """
        return None

    def attending(self, layer: int, state: TokenState) -> Attending | None:
        """How the tokens of block ``layer`` of a Swin attend where
        :meth:`TokenSpec.reach` says so; None for its windows."""
        return None

    def between(
        self, layer: int, x: Tensor, state: TokenState, attention: Attended
    ) -> tuple[Tensor, TokenState]:
        """Reduce between the attention, after whose residual sum the tokens
        come, and the MLP of block ``layer``."""
        return x, state

    def rejoin(
        self, layer: int, x: Tensor, state: TokenState
    ) -> tuple[Tensor, TokenState]:
        """Put back what was set aside for block ``layer`` only, before
        outputs are taken; or hand out what outputs are, if the next block
        gets something else, which :meth:`after` returns then."""
        return x, state

    def after(
        self, layer: int, x: Tensor, state: TokenState
    ) -> tuple[Tensor, TokenState]:
        """Reduce after block ``layer``, once outputs have been taken."""
        return x, state

    def alive(self, state: TokenState) -> Tensor | None:
        """Which patches are left though all are there, while it learns.

        Returns:
            (B, n), 1 or 0, for each patch token; None for all.
        """
        return None

    def stand(self, places: Tensor, state: TokenState) -> Tensor:
        """Where patches stand that are all there, while it learns, though
        some have merged.

        Args:
            places: Coordinates (1 or B, n, 2) by what the state records.
            state: The state.
        """
        return places

    def losses(self, state: TokenState) -> dict[str, Tensor]:
        """What to add to the loss of a batch, given the last state.

        Asked in training mode only, by
        :func:`~mmvitcompress.tokens.losses.report_losses`.

        Returns:
            Scalars by name, weighted.
        """
        return {}

    def learned(self):
        """What it has become, as a spec; waits for the device."""
        return self.spec

    def extra_repr(self) -> str:
        return '' if self.spec is None else str(self.spec)

    def fold_(self) -> None:
        """Turn what training needs apart into less work for inference, with
        equal results."""

    def layer_of(self, name: str) -> int:
        """The block that a parameter belongs to, for layer-wise decay.

        By default children are named after the index, from 0, of their block.
        """
        return int(name.partition('.')[0]) + 1

    def parts_of(self, layer: int) -> list[str]:
        """Names of children that go with block ``layer``: are frozen with it,
        and cut off."""
        name = str(layer - 1)
        return [name] if name in self._modules else []


def add_methods(
    net: nn.Module, arch, depth: int, training: bool = False
) -> tuple[str, ...]:
    """Build the token methods of an arch and add them to a net by their keys.

    Args:
        net: Gets one child for each method that has to do with its blocks.
        arch: Its arch.
        depth: How many of the blocks that methods choose from are built.
        training: See :meth:`TokenSpec.build`.

    Returns:
        The keys of those that were added.

    Raises:
        ConfigError: If there is nothing that learns by a way of its own.
    """
    if training and not any(spec.learns() for spec in arch.reductions):
        raise ConfigError(
            'soft_slimming trains what decides about tokens, but no token '
            'method of the arch has to learn it: give one that does, such as '
            'patch_slimming=dict(keep_rate=0.7)'
        )
    built = {
        spec.key: spec.build(arch, depth, training)
        for spec in arch.reductions
        if spec.begins() <= depth
    }
    built = {k: m for k, m in built.items() if m is not None}
    for key, method in built.items():
        net.add_module(key, method)
    return tuple(built)
