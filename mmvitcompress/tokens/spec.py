"""The interface of token methods: what a specification has to say.

A method is one file of ``methods``. Its :class:`TokenSpec` says what is
reduced where, and what that costs; the
:class:`~mmvitcompress.tokens.method.TokenMethod` that it builds does it,
between the blocks of a net or within one. All else (backbones, checkpoints,
MACs, planner, pictures, export) knows methods by this interface alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import ClassVar, NamedTuple

from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens.grids import Grid
from mmvitcompress.tokens.method import TokenMethod
from mmvitcompress.utils.checks import is_number

MASKED = 1e-6
"""What a masked key weighs in attention: enough for a gradient to pass."""


class Size(NamedTuple):
    """How many patch tokens there are, and in what grid they lie."""

    patches: int
    grid: Grid  # the last that they had, once they lie in none


class Counts(NamedTuple):
    """Patch tokens of one block."""

    attention: int
    mlp: int
    grid: Grid  # of those in the attention, see Size
    met: int  # what arrives there, before anything is reduced
    left: int  # what its output holds


class Reach(NamedTuple):
    """What the tokens of a block attend to, instead of those of a window."""

    keys: int  # tokens that keys and values are made of
    seen: int  # how many of them each token attends to
    others: int  # how many of them aren't among the tokens


@dataclass(frozen=True)
class TokenSpec:
    """What to reduce, where, and by how much: plain data, checked.

    Blocks are counted from 1, as in the papers. A spec validates itself when
    it is made and, by :meth:`check`, against the arch that holds it.

    Attributes:
        key: Name of the method: the backbones' argument, the key in an arch's
            JSON, and what its parameters' names begin with.
        families: The families of archs that it is made for.
        start: What to say when its layers start without weights of their own;
            empty if it has no layers.
        untrained: What is missing, and what to do, where its layers start
            without weights and aren't to be trained; empty if they serve as
            they start.
        learned_only: Names of children that there are only while it learns.
    """

    key: ClassVar[str]
    families: ClassVar[tuple[str, ...]] = ('vit', 'swin')
    start: ClassVar[str] = ''
    untrained: ClassVar[str] = ''
    learned_only: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def learns(cls) -> bool:
        """Whether it has a way of its own to learn."""
        return bool(cls.untrained or cls.learned_only)

    # -- data ---------------------------------------------------------------

    def to_dict(self) -> dict:
        """Builtin types only: the arguments that make an equal spec."""
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in content.items():
            if isinstance(value, TokenSpec):
                content[name] = value.to_dict()
            elif isinstance(value, tuple):
                content[name] = list(value)
        return content

    def is_empty(self) -> bool:
        """Whether it reduces nothing and has no layers."""
        return False

    def resolved(self, arch) -> 'TokenSpec':
        """Settle what depends on an arch, which doesn't hold it yet."""
        return self

    def parts(self, depth: int) -> dict[str, object]:
        """What has weights in ``depth`` blocks: names of children, and what
        each is trained for.

        A spec runs with the weights of another one if those that both have
        are trained for the same.
        """
        return {}

    def check(self, arch) -> None:
        """Raise ConfigError unless it fits an arch: its ``token_depth``, the
        blocks to choose from, and ``num_prefix_tokens``."""

    def ungridded_after(self, depth: int) -> int | None:
        """The first of ``depth`` blocks after whose attention tokens lie in no
        grid, or None.

        What needs a grid, such as merging neighbours or windows, can stand in
        that block, but in none after.
        """
        return None

    def last_gridded(self) -> int | None:
        """The last block that has to meet its tokens in a grid, or None."""
        return None

    def grid_step(self) -> Grid:
        """Multiples of these keep every grid even, in tokens."""
        return 1, 1

    def reach(self, layer: int, grid: Grid) -> Reach | None:
        """What tokens attend to in block ``layer`` of a Swin, whose patches
        lie in ``grid``; None if it has windows, and biases within them.

        Which blocks have none doesn't depend on the grid.
        """
        return None

    def check_export(self) -> None:
        """Raise ConfigError if no graph can be exported of it."""

    # -- planning -----------------------------------------------------------

    @classmethod
    def for_target(
        cls, arch, img_size, reduction_of, target: float, most: float = 1.0
    ) -> 'TokenSpec':
        """The spec that comes nearest to a target.

        Args:
            arch: A dense arch.
            img_size: Image size (H, W), in pixels.
            reduction_of: What a spec saves, as a fraction of the dense MACs.
            target: What is to be saved.
            most: What must not be passed, where channels save the rest; 1 if
                they don't.

        Raises:
            ConfigError: If the target is out of reach, or the method can't be
                planned.
        """
        raise ConfigError(
            f'{cls.key} cannot be planned for a target: give its arguments '
            'by hand'
        )

    @classmethod
    def for_images(
        cls, arch, img_size, reduction_of, target: float, error_of
    ) -> 'TokenSpec':
        """The spec that comes near to a target by what it does on images.

        Arguments are those of :meth:`for_target`, and ``error_of``, the error
        that a spec makes on the images.

        Raises:
            ConfigError: If the target is out of reach, or images don't help.
        """
        raise ConfigError(
            f'{cls.key} is not planned by images: leave calibration out'
        )

    def summary(self) -> str:
        """What it does, in a line."""
        return f'{self.key}: {self}'

    # -- cost ---------------------------------------------------------------

    def before(self, layer: int, size: Size) -> Size:
        """What is left for the attention of block ``layer``."""
        return size

    def between(self, layer: int, size: Size) -> Size:
        """What is left for the MLP of block ``layer``."""
        return size

    def rejoin(self, layer: int, size: Size) -> Size:
        """What there is once what block ``layer`` left out is back."""
        return size

    def after(self, layer: int, size: Size) -> Size:
        """What is left after block ``layer``."""
        return size

    def counts(self, grid: Grid, depth: int) -> list[Counts]:
        """Tokens of each of the blocks 1..depth, if nothing else reduces."""
        return count_tokens([self], grid, depth)

    def macs(self, layer: int, counts: Counts, arch, norm: int) -> int:
        """Multiply-accumulates of its own layers at block ``layer``.

        Args:
            layer: The block.
            counts: Its tokens.
            arch: What holds it.
            norm: What normalising one element counts for.
        """
        return 0

    def params(self, layer: int, arch) -> int:
        """Parameters of its own layers at block ``layer``."""
        return 0

    # -- module -------------------------------------------------------------

    def begins(self) -> int:
        """The first block that it has to do with: without that one it isn't
        built."""
        return 1

    def build(
        self, arch, depth: int, training: bool = False
    ) -> TokenMethod | None:
        """Make what does it.

        Args:
            arch: What holds it.
            depth: How many blocks are built; None is returned if it has
                nothing to do in them.
            training: Whether what it has to learn learns by a way of its own
                (life regression weights patches instead of dropping them).
        """
        raise NotImplementedError(f'{type(self).__name__}.build')


def keep_ratio(name: str, rate: float) -> tuple[int, int]:
    """A keep rate ρ as a ratio of whole numbers.

    Those are exact, and no obstacle where numbers of patches are symbols.

    Raises:
        ConfigError: If it doesn't lie in (0, 1].
    """
    if not is_number(rate) or not 0 < rate <= 1:
        raise ConfigError(f'{name} must lie in (0, 1], but got {rate!r}')
    # 0.55 is meant as 11/20, though as a float it lies a little above
    ratio = Fraction(rate).limit_denominator(10**6)
    return max(ratio, Fraction(1, 10**6)).as_integer_ratio()


def kept_share(ratio: tuple[int, int], patches: int) -> int:
    """Patches that stay of ``patches``: ⌈ρ·n⌉, never none."""
    return -(-patches * ratio[0] // ratio[1])


def count_tokens(
    specs: Sequence[TokenSpec], grid: Grid, depth: int
) -> list[Counts]:
    """Tokens of each of the blocks 1..depth under several methods."""
    size, counts = Size(grid[0] * grid[1], grid), []
    for layer in range(1, depth + 1):
        sizes = [size]
        for hook in ('before', 'between', 'rejoin'):
            for spec in specs:
                size = getattr(spec, hook)(layer, size)
            sizes.append(size)
        met, attended, mlp, left = (size.patches for size in sizes)
        counts.append(Counts(attended, mlp, sizes[1].grid, met, left))
        for spec in specs:
            size = spec.after(layer, size)
    return counts
