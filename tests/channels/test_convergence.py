"""Whether masked columns vanish in time: the estimate against Adam."""

import numpy as np
import pytest
import torch

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.channels import (
    ReductionSchedule,
    apply_penalty_,
    attach_compactors,
    convergence_notice,
)
from mmvitcompress.channels.convergence import shrinkage
from mmvitcompress.models import ViT


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


def test_notice_names_remedies_that_work():
    schedule = ReductionSchedule(0.5, 0.4, warmup=1000)  # at 11 000
    rates = cosine(1e-4, 20_000)
    notice = convergence_notice(schedule, rates, memory=0)
    assert '9000 iterations before the end' in notice
    factor = float(notice.split('learning rate ')[-1].split(' times')[0])
    assert 2 < factor < 20
    faster = factor * rates
    assert convergence_notice(schedule, faster, memory=0) is None
    # what Adam remembers is in the way, and can be cleared
    notice = convergence_notice(schedule, faster, memory=1000)
    assert "clear Adam's moments" in notice
    # the paper's own run is long enough as it is
    schedule = ReductionSchedule(0.544, 0.411, warmup=30 * 5004)
    rates = cosine(1e-4, 300 * 5004)
    assert convergence_notice(schedule, rates, memory=1000) is None


def test_notice_of_no_time_at_all():
    schedule = ReductionSchedule(0.5, 0.4)
    notice = convergence_notice(schedule, [1e-3] * 10_000)
    assert 'reached 0 iterations before the end' in notice
    assert notice.endswith('lengthen the run or reach the target earlier')


def test_notice_of_too_little_time_to_swing_out():
    schedule = ReductionSchedule(0.5, 0.4, increment=0.1, interval=600)
    rates = cosine(2e-2, 1200)
    notice = convergence_notice(schedule, rates, memory=0)
    assert '600 iterations before the end' in notice
    assert 'swing about it for about 1500' in notice
    betas = (0.9, 0.999)
    assert convergence_notice(schedule, rates, 0, betas) is None


def test_shrinking_needs_neither_rate_nor_memory():
    schedule = ReductionSchedule(0.5, 0.4, increment=0.1, interval=100)
    rates = [1e-4] * 300
    assert 'shrink=0.01' in convergence_notice(schedule, rates)
    assert convergence_notice(schedule, rates, shrink=0.01) is None
    notice = convergence_notice(schedule, rates, shrink=0.005)
    assert '200 iterations before the end' in notice
    assert '0.005 in each of 400' in notice


def test_notice_of_a_rate_at_which_columns_cannot_settle():
    schedule = ReductionSchedule(0.5, 0.4)
    rates = cosine(1e-2, 20_000, last=1e-3)
    assert 'ends at 0.001' in convergence_notice(schedule, rates, memory=0)
    rates = cosine(1e-2, 20_000, last=1e-4)
    assert convergence_notice(schedule, rates, memory=0) is None


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
    assert convergence_notice(schedule, rates, memory=0) is None
    adam = torch.optim.Adam([mlp.weight], betas=(0.99, 0.999))
    for rate in rates:
        mlp.weight.grad = torch.randn_like(mlp.weight) * 1e-4
        apply_penalty_(compactors)
        adam.param_groups[0]['lr'] = rate
        adam.step()
    norms = mlp.norms()[0]
    assert norms[:8].max() < 1e-5
    assert norms[8:].min() > 0.1
