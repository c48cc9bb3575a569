"""The growing reduction, and whether masked columns can vanish in time."""

import numpy as np
import pytest
import torch

from mmvitcompress.arch import ViTArch
from mmvitcompress.channels import (
    ReductionSchedule,
    apply_penalty_,
    attach_compactors,
    convergence_notice,
    shrinkage,
)
from mmvitcompress.errors import ConfigError
from mmvitcompress.models import ViT


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
    with pytest.raises(ConfigError, match=r'1100 iterations .* has 600') as e:
        schedule.check(600)
    assert 'increment be at least 0.002' in str(e.value)
    ReductionSchedule(0.5, 0.4, 100, 0.002, 10).check(600)
    with pytest.raises(ConfigError, match='has 50: lengthen the run'):
        schedule.check(50)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(target=43), r'between 0 and 1 .* got 43'),
        (dict(target=0.4, start=0.43), r'tokens alone save 43\.00%'),
        (dict(target=0.4, warmup=-1), 'but got -1'),
        (dict(target=0.4, increment=0), 'but got 0 and 25'),
        (dict(target=0.4, interval=0), 'and 0'),
        (dict(target=0.1, until=9_999), 'iteration 10000, .* got 9999'),
    ],
)
def test_bad_schedules_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        ReductionSchedule(**arguments)


def test_shrinkage_without_memory_is_the_sum_of_the_rates():
    assert shrinkage([0.1, 0.2, 0.05], memory=0) == pytest.approx(0.35)
    assert shrinkage([]) == 0


@pytest.mark.parametrize('memory', [1, 10, 100])
def test_shrinkage_is_what_adam_does(memory):
    """One masked column under torch's Adam, after large gradients."""
    lam, rate, steps = 1e-5, 1e-4, 4000
    column = torch.zeros(16, dtype=torch.float64)
    column[0], column[1:] = 1, 0.01
    column.requires_grad_()
    adam = torch.optim.Adam([column], lr=rate, betas=(0.99, 0.999))
    start = column.detach().norm().item()
    # as after a long training on the objective: the moments, no more
    column.grad = torch.zeros_like(column)
    adam.step()
    adam.state[column]['exp_avg_sq'].fill_((memory * lam) ** 2)
    adam.state[column]['step'].fill_(100_000)
    for _ in range(steps):
        with torch.no_grad():
            column.grad = lam * column / column.norm()
        adam.step()
    shrunk = start - column.detach().norm().item()
    expected = shrinkage([rate] * steps, memory)
    assert shrunk == pytest.approx(expected, rel=0.1, abs=0.01)


def cosine(rate, steps, last=0.0):
    phase = np.cos(np.pi * np.arange(steps) / steps)
    return last + (rate - last) * (1 + phase) / 2


def test_notice_names_a_remedy_that_works():
    schedule = ReductionSchedule(0.5, 0.4, warmup=1000)  # at 11 000
    rates = cosine(1e-4, 20_000)
    notice = convergence_notice(schedule, rates)
    assert '9000 iterations before the end' in notice
    factor = float(notice.split('about ')[2].split(' times')[0])
    assert convergence_notice(schedule, factor * rates) is None
    # or the paper's own length
    assert convergence_notice(schedule, cosine(1e-4, 1_500_000)) is None


def test_notice_of_no_time_at_all():
    schedule = ReductionSchedule(0.5, 0.4)
    notice = convergence_notice(schedule, [1e-3] * 10_000)
    assert 'reached 0 iterations before the end' in notice
    assert 'lengthen the run' in notice


def test_notice_of_a_rate_at_which_columns_cannot_settle():
    schedule = ReductionSchedule(0.5, 0.4)
    rates = cosine(1e-2, 20_000, last=1e-3)
    assert 'ends at 0.001' in convergence_notice(schedule, rates)
    assert convergence_notice(schedule, cosine(1e-2, 20_000, 1e-4)) is None


def test_masked_columns_vanish_when_there_is_no_notice():
    """In a run that the notice lets pass they end below 1e-5."""
    torch.manual_seed(0)
    model = ViT(ViTArch(4, 1, 1, patch_size=4, img_size=8))
    [block] = compactors = attach_compactors(model)
    mlp = block.mlp
    with torch.no_grad():
        mlp.weight.add_(0.05 * torch.randn(16, 16))
    mlp.kept[0, :8] = False
    rates = cosine(0.01, 2000)
    schedule = ReductionSchedule(0.5, 0.4, increment=0.1, interval=1)
    assert convergence_notice(schedule, rates) is None
    adam = torch.optim.Adam([mlp.weight], betas=(0.99, 0.999))
    for rate in rates:
        mlp.weight.grad = torch.randn_like(mlp.weight) * 1e-4
        apply_penalty_(compactors)
        adam.param_groups[0]['lr'] = rate
        adam.step()
    norms = mlp.norms()[0]
    assert norms[:8].max() < 1e-5
    assert norms[8:].min() > 0.1
