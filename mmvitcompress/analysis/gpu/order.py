"""What the report measures first: the most telling, as time may be short."""

from collections.abc import Callable, Iterator
from functools import partial

from mmvitcompress.analysis.gpu import sections
from mmvitcompress.analysis.gpu.budget import Task
from mmvitcompress.analysis.gpu.modes import MODES
from mmvitcompress.analysis.gpu.plan import Models, ReportPlan


def tasks(plan: ReportPlan) -> Iterator[Task]:
    """All that there is to measure, the most telling first."""
    head, models = next(iter(plan.heads.items()))
    pair = {'dense': models['dense'], 'cait': models['cait']}
    most = max(plan.batches)

    def task(
        section: str, row: str, seconds: float, measure: Callable, *args
    ) -> Task:
        call = partial(measure, plan, *args)
        return Task(section, row, seconds * plan.scale, call)

    backbones = {**models, **plan.peers}
    yield task('kernels', 'all backbones', 20, sections.kernels, backbones)
    yield task('numerics', head, 15, sections.numerics, pair)
    best = ('bf16', 'compiled'), ('bf16', 'eager'), ('float32', 'eager')
    others = [
        (precision, mode)
        for precision in plan.precisions
        for mode in MODES
        if (precision, mode) not in best
    ]
    for precision, mode in best:
        yield _backbone(task, pair, precision, mode, most)
    for name, own in plan.heads.items():
        yield _overall(task, name, own, 'bf16', 'eager', most)
    yield task('training', head, 20, sections.training, pair, 'bf16')
    yield task('detector', 'Mask R-CNN', 25, sections.detector, 'bf16')
    yield task('two processes', head, 30, sections.two_processes)
    for name, own in plan.heads.items():
        yield _overall(task, name, own, 'bf16', 'compiled', most)
    for batch in sorted(plan.batches)[:-1]:
        for name, own in plan.heads.items():
            yield _overall(task, name, own, 'bf16', 'eager', batch)
    for precision, mode in others:
        yield _backbone(task, pair, precision, mode, most)
    yield _backbone(task, pair, 'bf16', 'CUDA graphs', min(plan.batches))


def _backbone(
    task: Callable[..., Task],
    models: Models,
    precision: str,
    mode: str,
    batch: int,
) -> Task:
    row = f'{precision}, {mode}, batch {batch}'
    seconds = 60 if mode == 'compiled' else 10
    timed = models, precision, mode, batch
    return task('backbone', row, seconds, sections.backbone, *timed)


def _overall(
    task: Callable[..., Task],
    name: str,
    models: Models,
    precision: str,
    mode: str,
    batch: int,
) -> Task:
    row = f'{name}, {precision}, {mode}, batch {batch}'
    seconds = 40 * len(models) if mode == 'compiled' else 8 * len(models)
    timed = models, precision, mode, batch
    return task('whole models', row, seconds, sections.overall, *timed)
