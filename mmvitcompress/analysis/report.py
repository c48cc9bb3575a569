"""A benchmark's figures as a Markdown table, and where they were taken."""

import platform
from collections.abc import Mapping, Sequence
from os import environ
from pathlib import Path
from typing import Any

import torch

from mmvitcompress.analysis.benchmark import (
    COMPARED,
    TIMED,
    macs_ratios,
    speedup,
)
from mmvitcompress.analysis.footprint import MEASURED
from mmvitcompress.analysis.timing import TIMED_PARTS
from mmvitcompress.compat.versions import installed_version
from mmvitcompress.engine.backbone_flag import run_name

PARTS_OF = (
    ('backbone', 'encoder'),
    ('encoder', 'overall'),
    ('neck', 'overall'),
    ('head', 'overall'),
)
"""Parts, and what contains them."""
NOISE = 0.02
"""By what fraction a part may seem to take longer than the whole."""
_THINGS = {
    'backbone': 'the backbone',
    'encoder': 'the encoder',
    'overall': 'the network',
}


def environment(device: torch.device) -> dict[str, Any]:
    """What figures depend on besides the models."""
    return {
        'device_name': _device_name(device),
        'threads': torch.get_num_threads(),
        # keeping memory is worth 10 % on a CPU, see docs/speed.md
        'malloc': {k: v for k, v in environ.items() if 'MALLOC' in k},
        'torch': installed_version('torch'),
        'cpu_capability': torch.backends.cpu.get_cpu_capability(),
        'matmul_precision': torch.get_float32_matmul_precision(),
        'cudnn_benchmark': torch.backends.cudnn.benchmark,
        'peak_memory': MEASURED.get(device.type, 'not known'),
    }


def table(
    rows: Sequence[Mapping[str, Any]],
    baseline: Mapping[str, Any] | None,
    part: str = 'overall',
) -> str:
    """Markdown, a line for each model; medians, and × against the baseline.

    Args:
        rows: Of :func:`~mmvitcompress.analysis.benchmark.benchmark`, each
            with its ``config`` and, where that has another, ``backbone``.
        baseline: Such a row; it comes first. None if there is none.
        part: How much of the models was timed; MACs and parameters are those
            of this part. Defaults to 'overall'.
    """
    measured = [*([baseline] if baseline else []), *rows]
    return markdown_table([_cells(row, baseline, part) for row in measured])


def markdown_table(rows: Sequence[Mapping[str, str]], texts: int = 1) -> str:
    """Rows by column as a Markdown table.

    Args:
        rows: What stands in each column; what a row has not gets a dash.
        texts: How many of the columns are texts, the first ones; the others
            are numbers, aligned to the right. Defaults to 1.
    """
    heads = list(dict.fromkeys(head for row in rows for head in row))
    lines = [heads, ['---'] * texts + ['---:'] * (len(heads) - texts)]
    lines += [[row.get(head, '–') for head in heads] for row in rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def describe_benchmark(figures: Mapping[str, Any]) -> str:
    """The table and what one must know to read it.

    Args:
        figures: What tools/benchmark.py writes to JSON.
    """
    rows, baseline = figures['candidates'], figures['baseline']
    part = figures['part']
    lines = [table(rows, baseline, part), '', _circumstances(figures)]
    lines += ['Range of the runs, and the kernels that serve attention:']
    lines += [f'- {_spread(row)}' for row in [baseline, *rows] if row]
    lines += contradictions([row for row in [baseline, *rows] if row])
    if baseline:
        lines += ['If time followed MACs, speedups would be:']
        lines += [f'- {_name(row)}: {_limits(row, part)}' for row in rows]
    return '\n'.join(lines)


def contradictions(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each part that took longer than what it is a part of.

    Medians may differ by :data:`NOISE`.

    Args:
        rows: As of :func:`table`.
    """
    found = []
    for row in rows:
        for part, whole in PARTS_OF:
            times = [row.get(f'{name}_ms') for name in (part, whole)]
            if None in times:
                continue
            short, long = (each['median'] for each in times)
            if short > long * (1 + NOISE):
                found.append(
                    f'The figures contradict each other: the {part} of '
                    f'{_name(row)} took {short:.1f} ms, the {whole}, which '
                    f'contains it, {long:.1f} ms. Something else was running: '
                    'measure again, with more --repeats.'
                )
    return found


def _circumstances(figures: Mapping[str, Any]) -> str:
    place = figures['environment']
    height, width = figures['input_shape']
    extras = [
        text
        for key, text in (
            ('compile', 'compiled'),
            ('channels_last', 'channels-last'),
        )
        if figures[key]
    ]
    told = ', by processor time' if figures.get('clock') == 'cpu' else ''
    modes = ''.join(f', {text}' for text in extras)
    return (
        f'{place["device_name"]} ({figures["device"]}), '
        f'{figures["dtype"]}{modes}, {place["threads"]} CPU threads, PyTorch '
        f'{place["torch"]}. Batches of {figures["batch_size"]} at '
        f'{height} × {width} pixels (after padding), images: '
        f'{figures["images"]}. Medians of {figures["repeats"]} runs after '
        f'{figures["warmup"]} to warm up, all parts taking turns{told}. MACs '
        f'are of {_THINGS[figures["part"]]} for one image. '
        f'Peak: {place["peak_memory"]}.'
    )


def _spread(row: Mapping[str, Any]) -> str:
    times = ', '.join(
        f'{part} {ms["min"]:.1f}–{ms["max"]:.1f} ms'
        for part in COMPARED
        if (ms := row[f'{part}_ms'])
    )
    kernels = row['attention_kernels'].items()
    calls = ', '.join(f'{kernel} ({count}×)' for kernel, count in kernels)
    text = f'{_name(row)}: {times}; {calls or "no attention"}'
    if 'compile_s' in row:
        text += (
            f'; compiled in {row["compile_s"]:.1f} s, graph breaks: '
            f'{row["graph_breaks"]}'
        )
    return text


def _limits(row: Mapping[str, Any], part: str) -> str:
    return ', '.join(
        f'{name} {ratio:.2f}×'
        for name, ratio in row['macs_ratios'].items()
        if ratio is not None and name in TIMED[part]
    )


def _cells(
    row: Mapping[str, Any], baseline: Mapping[str, Any] | None, part: str
) -> dict[str, str]:
    """What stands in a line, by the heads of the columns."""
    gains, limits = {}, {}
    if baseline is not None and row is not baseline:
        gains, limits = speedup(row, baseline), macs_ratios(row, baseline)

    def gained(text: str, gain: float | None) -> str:
        return text if gain is None else f'{text} ({gain:.2f}×)'

    whole = part == 'overall'
    macs, params = (
        row[cost] if whole else row[f'{cost}_by_part'][part]
        for cost in ('macs', 'params')
    )
    cells = {
        'config': _name(row),
        'MACs (G)': gained(f'{macs / 1e9:.3f}', limits.get(part)),
        'params (M)': f'{params / 1e6:.2f}',
    }
    for name in TIMED_PARTS:
        if name in TIMED[part]:
            time = row[f'{name}_ms']
            text = '–' if time is None else f'{time["median"]:.1f}'
            cells[f'{name} (ms)'] = gained(text, gains.get(name))
    if whole:
        cells['images/s'] = f'{row["images_per_s"]:.2f}'
    memory = row['peak_memory_mb']
    cells['peak (MiB)'] = '–' if memory is None else f'{memory:.0f}'
    return cells


def _name(row: Mapping[str, Any]) -> str:
    return run_name(row['config'], row.get('backbone'))


def _device_name(device: torch.device) -> str:
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    cpuinfo = Path('/proc/cpuinfo')
    if device.type == 'cpu' and cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()
