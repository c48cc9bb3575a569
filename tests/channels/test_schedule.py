"""The growing reduction."""

import numpy as np
import pytest

from mmvitcompress.channels import ReductionSchedule
from mmvitcompress.errors import ConfigError


def test_growth_by_hand():
    """0.3 in steps of 0.1 every 10 iterations, after 100 of warm-up."""
    schedule = ReductionSchedule(0.75, 0.45, 100, increment=0.1, interval=10)
    at = [0, 100, 109, 110, 119, 120, 129, 130, 131, 10_000]
    expected = [0.45] * 3 + [0.55] * 2 + [0.65] * 2 + [0.75] * 3
    found = [schedule.reduction_at(iteration) for iteration in at]
    assert found == pytest.approx(expected, abs=1e-12)
    assert found[-1] == 0.75
    assert (schedule.steps, schedule.reached_at) == (3, 130)


def test_selection_takes_place_every_interval_after_the_warm_up():
    schedule = ReductionSchedule(0.2, 0.1, 50, 0.05, 25, until=125)
    found = [i for i in range(300) if schedule.selects_at(i)]
    assert found == [75, 100, 125]
    endless = ReductionSchedule(0.2, 0.1, 50, 0.05, 25)
    found = [i for i in range(200) if endless.selects_at(i)]
    assert found == [75, 100, 125, 150, 175]


def test_the_papers_growth_on_imagenet():
    """30 epochs of 5 004 iterations, then 13.3 % in steps of 0.025 %."""
    schedule = ReductionSchedule(0.544, 0.411, warmup=30 * 5004)
    assert schedule.steps == 532
    assert schedule.reached_at == 150_120 + 532 * 25
    assert schedule.reduction_at(150_120 + 25) == pytest.approx(0.41125)
    schedule.check(300 * 5004)


def test_every_growth_is_small():
    schedule = ReductionSchedule(0.3, 0.0, warmup=7, interval=3)
    path = [schedule.reduction_at(i) for i in range(schedule.reached_at + 9)]
    growth = np.diff(path)
    assert growth.min() >= 0
    assert growth.max() <= 0.00025 + 1e-12
    assert path[schedule.reached_at - 1] < path[schedule.reached_at] == 0.3


def test_a_run_that_is_too_short_is_refused_with_a_remedy():
    schedule = ReductionSchedule(0.5, 0.4, 100, 0.001, 10)
    schedule.check(1100)
    with pytest.raises(ConfigError, match=r'1100 .* for 600 only') as e:
        schedule.check(600)
    assert 'increment be at least 0.002' in str(e.value)
    ReductionSchedule(0.5, 0.4, 100, 0.002, 10).check(600)
    with pytest.raises(ConfigError, match='for 50 only: lengthen the run'):
        schedule.check(50)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(target=43), r'between 0 and 1 .* got 43'),
        (dict(target=0.4, start=0.43), r'tokens alone save 43\.00%'),
        (dict(target=0.4, warmup=-1), 'but got -1'),
        (dict(target=0.4, increment=0), 'increment .* positive .* got 0'),
        (dict(target=0.4, increment=float('nan')), 'increment .* got nan'),
        (dict(target=0.4, interval=0), 'interval .* at least 1, but got 0'),
        (dict(target=0.1, until=9_999), 'iteration 10000, .* got 9999'),
    ],
)
def test_bad_schedules_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        ReductionSchedule(**arguments)
