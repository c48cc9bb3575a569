"""The sections of the report, a function each; see
:class:`~mmvitcompress.analysis.gpu.plan.ReportPlan` for what it is given.

Weights and images are random: times and memory do not depend on them.
"""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from mmvitcompress.analysis.benchmark import macs_ratios
from mmvitcompress.analysis.complexity import model_complexity
from mmvitcompress.analysis.footprint import attention_kernels, peak_memory
from mmvitcompress.analysis.gpu.distributed import gradients_agree
from mmvitcompress.analysis.gpu.modes import ARITHMETIC, arithmetic, timed
from mmvitcompress.analysis.gpu.plan import Models, ReportPlan, load_shipped
from mmvitcompress.analysis.inference import (
    evaluating,
    image_channels,
    padded_shape,
    run_network,
)
from mmvitcompress.analysis.timing import time_calls

OPTIMIZED = 'cait, optimised'


def kernels(plan: ReportPlan, models: Models) -> dict[str, Any]:
    """By backbone and precision the kernels that serve attention."""
    found = {}
    for name in models:
        with _built(plan, {name: models[name]}) as (one, images):
            found[name] = {}
            for precision in ARITHMETIC:
                with arithmetic(precision) as dtype:
                    found[name][precision] = attention_kernels(
                        one[name], images, dtype
                    )
    return found


def numerics(plan: ReportPlan, models: Models) -> dict[str, Any]:
    """By model and precision the largest difference of backbone and neck from
    float64 on the CPU, as a fraction of the largest output.

    'CPU' is float32 there: what is due to float32 itself.
    """
    found = {}
    with _built(plan, models) as (built, images):
        for name, model in built.items():
            on_cpu = deepcopy(model).cpu()
            exact = _encoded(on_cpu.double(), images.cpu().double())
            found[name] = {
                'CPU': _error(_encoded(on_cpu.float(), images.cpu()), exact)
            }
            for precision in ARITHMETIC:
                with arithmetic(precision) as dtype:
                    found[name][precision] = _error(
                        _encoded(model, images, dtype), exact
                    )
    return found


def backbone(
    plan: ReportPlan, models: Models, precision: str, mode: str, batch: int
) -> dict[str, Any]:
    """Times of backbones, also of the compressed one as ``plan.prepare``
    makes it."""
    with _built(plan, models, batch) as (built, images):
        ratio = _ratios(built, 'dense', plan.shape)
        if plan.prepare is not None:
            built[OPTIMIZED] = plan.prepare(built['cait'])
            ratio[OPTIMIZED] = ratio['cait']
        times = timed(
            *(built, images, ('backbone',), precision, mode, plan.repeats),
            compiler=plan.compiler,
        )
        return _gains(times, 'dense', ('backbone',), ratio, batch)


def overall(
    plan: ReportPlan, models: Models, precision: str, mode: str, batch: int
) -> dict[str, Any]:
    """Times of encoders and whole networks, against the first model."""
    parts = 'encoder', 'overall'
    with _built(plan, models, batch) as (built, images):
        first = next(iter(built))
        ratio = _ratios(built, first, plan.shape)
        times = timed(
            *(built, images, parts, precision, mode, plan.repeats),
            compiler=plan.compiler,
        )
        return _gains(times, first, parts, ratio, batch)


def detector(plan: ReportPlan, precision: str) -> dict[str, Any]:
    """The same for detectors, one large image."""
    parts, models = ('encoder', 'overall'), plan.detectors
    shape = plan.detector_shape
    with _built(plan, models, 1, shape) as (built, images):
        first = next(iter(built))
        ratio = _ratios(built, first, shape)
        times = timed(*(built, images, parts, precision), repeats=plan.repeats)
        return _gains(times, first, parts, ratio, 1)


def training(
    plan: ReportPlan, models: Models, precision: str
) -> dict[str, Any]:
    """Time and memory of a step: forward, backward and AdamW.

    The loss is the mean square of the raw outputs: what a task adds to it
    depends on the head alone. Memory is that of weights, gradients and what
    is kept for them; AdamW's moments, two floats a weight, are not in it.
    """
    batch = sorted(plan.batches)[len(plan.batches) // 2]
    found = {}
    with _built(plan, models, batch) as (built, images):
        steps = {
            name: {'overall': _Step(model, images, precision)}
            for name, model in built.items()
        }
        times = time_calls(
            *(steps, images.device, plan.repeats, 2), parts=('overall',)
        )
        for name, own in steps.items():
            found[name] = dict(
                ms=times[name]['overall'],
                images_per_s=1000 * batch / times[name]['overall']['median'],
                peak_memory_mb=peak_memory(
                    own['overall'], built[name], images.device
                ),
                gain=times['dense']['overall']['median']
                / times[name]['overall']['median'],
                batch=batch,
            )
    return found


def two_processes(plan: ReportPlan) -> dict[str, Any]:
    """Whether two processes get the gradients that one gets of all images,
    over NCCL on two cards, over Gloo on a CPU."""
    models = next(iter(plan.heads.values()))
    return gradients_agree(models['cait'], plan.device, plan.shape)


class _Step:
    """One step of training."""

    def __init__(self, model: nn.Module, images: Tensor, precision: str):
        self.model, self.images = model.train(), images
        self.precision = precision
        learned = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learned, lr=1e-5)

    def __call__(self) -> None:
        with arithmetic(self.precision) as dtype:
            enabled = dtype is not None
            kind = self.images.device.type
            with torch.autocast(kind, dtype, enabled=enabled):
                outputs = run_network(self.model, self.images)
            squares = [each.float().square().mean() for each in _flat(outputs)]
            sum(squares).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def _flat(outputs: Any) -> Iterator[Tensor]:
    """All tensors in nested lists and tuples."""
    if isinstance(outputs, Tensor):
        yield outputs
    else:
        for output in outputs:
            yield from _flat(output)


@contextmanager
def _built(
    plan: ReportPlan,
    models: Mapping[str, str],
    batch: int = 1,
    shape: tuple[int, int] | None = None,
) -> Iterator[tuple[dict[str, nn.Module], Tensor]]:
    """Models on the device, and images for them; both go afterwards."""
    made = {name: load_shipped(config) for name, config in models.items()}
    one = next(iter(made.values()))
    size = padded_shape(one, shape or plan.shape)
    for model in made.values():
        model.to(plan.device)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(
        batch, image_channels(one), *size, generator=generator
    )
    try:
        yield made, images.to(plan.device)
    finally:
        made.clear()
        gc.collect()


@torch.no_grad()
def _encoded(
    model: nn.Module, images: Tensor, dtype: torch.dtype | None = None
) -> list[Tensor]:
    with (
        evaluating(model),
        torch.autocast(images.device.type, dtype, enabled=dtype is not None),
    ):
        return [each.double().cpu() for each in model.extract_feat(images)]


def _error(found: list[Tensor], exact: list[Tensor]) -> float:
    return max(
        ((a - b).abs().max() / b.abs().max()).item()
        for a, b in zip(found, exact)
    )


def _ratios(
    models: Mapping[str, nn.Module], first: str, shape: tuple[int, int]
) -> dict[str, dict[str, float | None]]:
    """By model and part, what the gains would be if time followed MACs."""
    rows = {}
    for name, model in models.items():
        counted = model_complexity(model, shape)
        parts = {**counted['parts'], 'encoder': counted['encoder']}
        rows[name] = dict(
            macs=counted['total']['macs'],
            macs_by_part={part: own['macs'] for part, own in parts.items()},
        )
    return {name: macs_ratios(row, rows[first]) for name, row in rows.items()}


def _gains(
    times: Mapping[str, Mapping],
    first: str,
    parts: tuple[str, ...],
    ratios: Mapping[str, Mapping],
    batch: int,
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, own in times.items():
        found[name] = {}
        for part in parts:
            median = own[part]['median']
            found[name][part] = dict(
                ms=own[part],
                images_per_s=1000 * batch / median,
                gain=times[first][part]['median'] / median,
                macs_ratio=ratios[name][part],
            )
    return found
