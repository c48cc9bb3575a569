"""CDCP's schedule: the MAC reduction that is due at each iteration."""

import math
from dataclasses import dataclass

from mmvitcompress.errors import ConfigError
from mmvitcompress.utils.checks import (
    check_positive,
    check_positive_number,
    check_target,
)


@dataclass(frozen=True)
class ReductionSchedule:
    """The reduction r_t that the masks have to reach (CAIT III-C).

    Reductions are fractions of the dense, unmerged model's MACs; r_t starts
    at what the tokens save, stays there during the warm-up, then grows by
    ``increment`` every ``interval`` iterations up to the target. It is a
    function of the iteration alone: a resumed run goes on as if it had not
    been stopped.

    Args:
        target: Reduction to end with, by tokens and channels.
        start: Reduction by tokens alone.
        warmup: Iterations before the first growth's interval begins; the
            paper's are 30 epochs.
        increment: Growth at a time; the paper's 0.025 %.
        interval: Iterations between two selections.
        until: Last iteration at which channels are selected, so that the
            remaining ones only let masked columns converge. Defaults to the
            end of the run.

    Raises:
        ConfigError: If a value is out of range, or tokens alone reach the
            target.
    """

    target: float
    start: float = 0.0
    warmup: int = 0
    increment: float = 0.00025
    interval: int = 25
    until: int | None = None

    def __post_init__(self):
        check_target(self.target)
        if self.start >= self.target:
            raise ConfigError(
                f'tokens alone save {self.start:.2%} of the MACs, so that no '
                f'channels need to go for a target of {self.target:.2%}; '
                'raise the target or train without compactors'
            )
        if self.warmup < 0:
            raise ConfigError(
                f'warmup must be at least 0 iterations, but got {self.warmup}'
            )
        check_positive_number('increment', self.increment)
        check_positive('interval', self.interval)
        if self.until is not None and self.until < self.reached_at:
            raise ConfigError(
                f'until must not come before iteration {self.reached_at}, at '
                f'which the target is reached, but got {self.until}'
            )

    @property
    def steps(self) -> int:
        """Number of growths up to the target."""
        growth = (self.target - self.start) / self.increment
        return math.ceil(growth - 1e-9)

    @property
    def reached_at(self) -> int:
        """Iteration at which r_t is the target for the first time."""
        return self.warmup + self.steps * self.interval

    def reduction_at(self, iteration: int) -> float:
        """r_t after ``iteration`` iterations."""
        grown = max(0, iteration - self.warmup) // self.interval
        if grown >= self.steps:
            return self.target
        return self.start + grown * self.increment

    def selects_at(self, iteration: int) -> bool:
        """Whether channels are selected after ``iteration`` iterations."""
        settling = self.until is not None and iteration > self.until
        since = iteration - self.warmup
        return since > 0 and since % self.interval == 0 and not settling

    def check(self, iterations: int) -> None:
        """Raise ConfigError if so many don't suffice for the target."""
        if self.reached_at <= iterations:
            return
        growths = (iterations - self.warmup) // self.interval
        remedy = 'lengthen the run or shorten the warm-up'
        if growths > 0:
            needed = (self.target - self.start) / growths
            remedy += f', or let increment be at least {needed:.2g}'
        raise ConfigError(
            f'the target reduction of {self.target:.2%} is reached after '
            f'{self.reached_at} iterations ({self.warmup} of warm-up, then '
            f'{self.steps} growths by {self.increment:.3%} every '
            f'{self.interval}), but channels are selected for {iterations} '
            f'only: {remedy}'
        )
