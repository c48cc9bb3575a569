"""What became of a network in its runtimes: time, size, memory, accuracy."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from mmvitcompress.analysis.benchmark import costs, macs_ratios
from mmvitcompress.analysis.timing import CLOCKS, time_calls
from mmvitcompress.deploy import evaluation
from mmvitcompress.deploy.shipping import Candidate, Row, Trial
from mmvitcompress.deploy.targets.memory import process_memory_mb

EAGER = 'pytorch'
Shipped = Mapping[str, tuple[Candidate, list[Row]]]


def figures(shipped: Shipped, trial: Trial) -> dict[str, dict[str, dict]]:
    """Time, size, memory and accuracy of PyTorch and of each file.

    All candidates and all their files take turns.

    Args:
        shipped: By name (such as 'compressed', 'dense') a candidate and what
            :func:`~mmvitcompress.deploy.shipping.ship` made of it.
        trial: What to measure.

    Returns:
        By candidate and row, 'pytorch' included: ``ms`` (median, min and max
        of a batch of the first size), ``images_per_s`` (the most of all batch
        sizes), ``mb``, ``peak_mb``; with images to check ``metrics`` and
        ``agreement`` with PyTorch.
    """
    graphs = {
        name: {
            row.name: row.target.load(row.path, row.precision)
            for row in rows
            if row.target.runs_here()
        }
        for name, (_, rows) in shipped.items()
    }
    found = {name: {EAGER: {}} for name in shipped}
    for name, (candidate, rows) in shipped.items():
        for row in rows:
            own = found[name][row.name] = {}
            own['mb'] = _megabytes(row.path)
            if trial.memory and row.target.runs_here():
                size = candidate.network.example(trial.batch_sizes[0]).shape
                own['peak_mb'] = process_memory_mb(
                    *(row.target.name, row.path, row.precision, size),
                    torch.get_num_threads(),
                )
    for size in trial.batch_sizes:
        for (name, row), ms in _times(shipped, graphs, size, trial).items():
            own = found[name].setdefault(row, {})
            own.setdefault('ms', ms)
            rate = 1000 * size / ms['median']
            own['images_per_s'] = max(rate, own.get('images_per_s', 0))
    if trial.check_images:
        for name, (candidate, _) in shipped.items():
            for row, own in _accuracy(candidate, graphs[name], trial).items():
                found[name][row].update(own)
    return found


@torch.inference_mode()
def _times(
    shipped: Shipped,
    graphs: Mapping[str, Mapping[str, nn.Module]],
    size: int,
    trial: Trial,
) -> dict[tuple[str, str], dict[str, float]]:
    calls: dict[tuple, dict[str, Callable]] = {}
    for name, (candidate, _) in shipped.items():
        network = candidate.network
        images = network.example(size)
        runners = {EAGER: network, **graphs[name]}
        if trial.bf16:
            runners[f'{EAGER} bf16'] = _autocast(network)
        for row, run in runners.items():
            calls[name, row] = {
                'overall': lambda run=run, images=images: run(images)
            }
    times = time_calls(
        *(calls, torch.device('cpu'), trial.repeats),
        warmup=min(2, trial.repeats),
        parts=('overall',),
        clock=CLOCKS[trial.clock],
    )
    return {key: each['overall'] for key, each in times.items()}


def _autocast(module: nn.Module) -> Callable:
    return torch.autocast('cpu', torch.bfloat16)(module.forward)


def _accuracy(
    candidate: Candidate, graphs: Mapping[str, nn.Module], trial: Trial
) -> dict[str, dict]:
    cfg, model, network = candidate
    models = {EAGER: model} | {
        name: evaluation.with_graph(model, network.part, graph)
        for name, graph in graphs.items()
    }
    dataset = evaluation.validation_data(cfg)
    chosen, _ = evaluation.choose_images(
        len(dataset), trial.check_images, trial.calibration_images
    )
    return evaluation.compare_accuracy(cfg, models, dataset, chosen)


def _megabytes(path: str) -> float:
    """Of a file and of the weights that lie beside it."""
    file = Path(path)
    weights = file.with_name(f'{file.name}.data')
    if file.suffix == '.xml':
        weights = file.with_suffix('.bin')
    files = [each for each in (file, weights) if each.is_file()]
    return sum(each.stat().st_size for each in files) / 1e6


def macs_ratio(compressed: Candidate, dense: Candidate) -> float:
    """How much less work, which the speedup would be if time followed it."""
    shape, part = compressed.network.spec.shape, compressed.network.part
    own, other = (costs(made.model, shape) for made in (compressed, dense))
    return macs_ratios(own, other)['overall' if part == 'all' else part]
