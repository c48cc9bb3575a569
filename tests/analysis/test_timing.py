"""Timing by a clock of our own, and on real models."""

import pytest
import torch
from torch import nn

from mmvitcompress.analysis.candidates import build_candidate
from mmvitcompress.analysis.inference import evaluating
from mmvitcompress.analysis.timing import (
    TIMED_PARTS,
    part_calls,
    time_calls,
)
from mmvitcompress.errors import ConfigError


class Clock:
    """Stands still unless a model lets time pass."""

    def __init__(self):
        self.now = 100.0
        self.log = []

    def __call__(self):
        return self.now

    def work(self, name, seconds):
        self.log.append(name)
        self.now += seconds


class Step(nn.Module):
    """Takes the given seconds, one after another, then the last for ever."""

    def __init__(self, clock, name, *seconds):
        super().__init__()
        self.clock, self.name, self.seconds = clock, name, list(seconds)

    def forward(self, x):
        assert not self.training
        assert torch.is_inference_mode_enabled()
        seconds = self.seconds
        self.clock.work(
            self.name, seconds.pop(0) if len(seconds) > 1 else seconds[0]
        )
        return x + 1


class Model(nn.Module):
    def __init__(self, clock, name, *seconds, neck=True):
        super().__init__()
        self.backbone = Step(clock, f'{name}.backbone', *seconds)
        self.neck = Step(clock, f'{name}.neck', 0.25) if neck else None
        self.head = Step(clock, f'{name}.head', 0.125)

    def forward(self, x):
        x = self.backbone(x)
        x = x if self.neck is None else self.neck(x)
        return self.head(x)


IMAGES = torch.zeros(1, 3, 4, 4)


def time_parts(models, images, dtype=None, **kwargs):
    """Time models as ``benchmark`` does."""
    with evaluating(*models.values()), torch.inference_mode():
        calls = {
            name: part_calls(model, images, dtype)
            for name, model in models.items()
        }
        return time_calls(calls, images.device, **kwargs)


def test_every_part_by_the_clock():
    clock = Clock()
    models = {'ours': Model(clock, 'ours', 1.0)}
    times = time_parts(models, IMAGES, repeats=3, warmup=1, clock=clock)
    assert list(times['ours']) == list(TIMED_PARTS)
    expected = dict(
        backbone=1000, neck=250, head=125, encoder=1250, overall=1375
    )
    for part, taken in times['ours'].items():
        assert taken == dict.fromkeys(('median', 'min', 'max'), expected[part])
        assert all(type(value) is float for value in taken.values())


def test_median_and_extremes_of_the_measured_rounds_alone():
    clock = Clock()
    # one run records what the backbone puts out, two warm up, four count
    seconds = (9, 8, 7, 0.5, 0.25, 2, 1, 6)
    models = {'ours': Model(clock, 'ours', *seconds)}
    times = time_parts(
        models,
        IMAGES,
        repeats=4,
        warmup=2,
        parts=['backbone'],
        clock=clock,
    )
    assert times == {
        'ours': {'backbone': dict(median=750.0, min=250.0, max=2000.0)}
    }


def test_models_take_turns_and_neither_always_goes_first():
    clock = Clock()
    models = {name: Model(clock, name, 1.0) for name in 'ab'}
    time_parts(
        models,
        IMAGES,
        repeats=3,
        warmup=1,
        parts=['backbone', 'neck'],
        clock=clock,
    )
    recording, timed = clock.log[:4], clock.log[4:]
    assert recording == ['a.backbone', 'a.neck', 'b.backbone', 'b.neck']
    there = ['a.backbone', 'b.backbone', 'a.neck', 'b.neck']
    assert timed == [*there, *reversed(there)] * 2


def test_a_noisy_minute_reaches_all_parts_alike():
    """Twice as slow for the second half of the run, whatever runs then."""
    clock = Clock()
    models = {name: Model(clock, name, 1.0) for name in 'ab'}
    work = clock.work
    # 2 steps of each model are recorded, then 8 steps are timed in a round
    steps = 2 * (2 + 4 * 8)

    def noisy(name, seconds):
        work(name, seconds * (1 if len(clock.log) < steps else 2))

    clock.work = noisy
    times = time_parts(models, IMAGES, repeats=8, warmup=0, clock=clock)
    for own in times.values():
        medians = {part: each['median'] for part, each in own.items()}
        assert medians['backbone'] < medians['encoder'] < medians['overall']
        assert own['backbone'] == dict(median=1500, min=1000, max=2000)


def test_head_runs_without_the_encoder():
    clock = Clock()
    models = {'a': Model(clock, 'a', 1.0)}
    time_parts(
        models, IMAGES, repeats=2, warmup=0, parts=['head'], clock=clock
    )
    assert clock.log == ['a.backbone', 'a.neck', 'a.head', 'a.head']


def test_model_without_neck_beside_one_with_it():
    clock = Clock()
    models = {
        'bare': Model(clock, 'bare', 1.0, neck=False),
        'full': Model(clock, 'full', 1.0),
    }
    times = time_parts(models, IMAGES, repeats=1, warmup=0, clock=clock)
    assert 'neck' not in times['bare']
    assert times['bare']['encoder']['median'] == 1000
    assert times['full']['encoder']['median'] == 1250


def test_models_are_put_back():
    clock = Clock()
    model = Model(clock, 'a', 1.0)
    model.head.eval()
    children = dict(model.named_children())
    time_parts({'a': model}, IMAGES, repeats=1, warmup=0, clock=clock)
    assert dict(model.named_children()) == children
    assert model.training and model.backbone.training
    assert not model.head.training


def test_autocast_reaches_every_part():
    seen = {}

    class Linear(nn.Linear):
        def __init__(self, name):
            super().__init__(4, 4)
            self.name = name

        def forward(self, x):
            out = super().forward(x)
            seen.setdefault(self.name, set()).add((x.dtype, out.dtype))
            return out

    model = Model(Clock(), 'a', 1.0)
    model.backbone = Linear('backbone')
    model.neck, model.head = Linear('neck'), Linear('head')
    half, full = torch.bfloat16, torch.float32
    time_parts({'a': model}, IMAGES, repeats=1, warmup=0, dtype=half)
    assert seen == {
        'backbone': {(full, half)},
        'neck': {(half, half)},
        'head': {(half, half)},
    }


@pytest.mark.slow
def test_every_kind_of_model_is_timed(config):
    models = {name: build_candidate(config) for name in ('a', 'b')}
    images = torch.rand(2, 3, 64, 96)
    times = time_parts(models, images, repeats=1, warmup=0, parts=TIMED_PARTS)
    has_neck = 'neck' in config.model
    for by_part in times.values():
        assert ('neck' in by_part) == has_neck
        assert len(by_part) == len(TIMED_PARTS) - (not has_neck)
        for taken in by_part.values():
            assert 0 < taken['min'] == taken['median'] == taken['max']


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(parts=['body']), "but got 'body'"),
        (dict(repeats=0), 'but got 0 and 5'),
        (dict(warmup=-1), 'but got 20 and -1'),
    ],
)
def test_what_cannot_be_measured(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        time_parts({}, IMAGES, **kwargs)
