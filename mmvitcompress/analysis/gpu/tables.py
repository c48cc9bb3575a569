"""The report as Markdown: what stands in docs/speed.md."""

from collections.abc import Callable, Mapping
from typing import Any

from mmvitcompress.analysis.gpu.modes import ARITHMETIC
from mmvitcompress.analysis.report import markdown_table


def report_markdown(report: Mapping[str, Any]) -> str:
    """A heading, a table for each section, and what was not measured.

    Args:
        report: As tools/gpu_report.py writes it to JSON.
    """
    place, found = report['environment'], report['sections']
    lines = [
        f'### {place["device_name"]}',
        '',
        f'PyTorch {place["torch"]}, {report["date"]}; random weights and '
        f'images, medians of {report["repeats"]} turns. *Ideal*: what the '
        'gain would be if time followed MACs.',
    ]
    for section, draw in DRAW.items():
        if section in found:
            lines += ['', f'**{section.capitalize()}**', '']
            lines.append(markdown_table(draw(found[section])))
    if report['skipped']:
        lines += ['', 'Not measured:', '']
        lines += [
            f'- {each["section"]}, {each["row"]}: {each["why"]}'
            for each in report['skipped']
        ]
    return '\n'.join([*lines, ''])


def _kernels(rows: Mapping) -> list[dict[str, str]]:
    return [
        {'attention': name}
        | {
            precision: ', '.join(f'{k} ({n}×)' for k, n in calls.items())
            or 'none'
            for precision, calls in own.items()
        }
        for found in rows.values()
        for name, own in found.items()
    ]


def _numerics(rows: Mapping) -> list[dict[str, str]]:
    return [
        {'largest error': name}
        | {key: f'{own[key]:.1e}' for key in ('CPU', *ARITHMETIC)}
        for found in rows.values()
        for name, own in found.items()
    ]


def _timed(rows: Mapping) -> list[dict[str, str]]:
    lines = []
    for row, models in rows.items():
        for name, parts in models.items():
            line = {'': row, 'model': name}
            for part, own in parts.items():
                ideal = own['macs_ratio']
                line[f'{part} (ms)'] = f'{own["ms"]["median"]:.2f}'
                line[f'{part}: images/s'] = f'{own["images_per_s"]:.1f}'
                line[f'{part}: gain'] = f'{own["gain"]:.2f}×'
                line[f'{part}: ideal'] = f'{ideal:.2f}×' if ideal else '–'
            lines.append(line)
    return lines


def _training(rows: Mapping) -> list[dict[str, str]]:
    return [
        {
            'a step of': f'{head}, {name}',
            'batch': str(own['batch']),
            'ms': f'{own["ms"]["median"]:.1f}',
            'images/s': f'{own["images_per_s"]:.1f}',
            'gain': f'{own["gain"]:.2f}×',
            'peak (MiB)': f'{own["peak_memory_mb"]:.0f}',
        }
        for head, found in rows.items()
        for name, own in found.items()
    ]


def _processes(rows: Mapping) -> list[dict[str, str]]:
    return [
        {
            'two processes': head,
            'over': own['backend'],
            'largest error of gradients': f'{own["relative_error"]:.1e}',
        }
        for head, own in rows.items()
    ]


DRAW: dict[str, Callable[[Mapping], list[dict[str, str]]]] = {
    'kernels': _kernels,
    'numerics': _numerics,
    'backbone': _timed,
    'whole models': _timed,
    'detector': _timed,
    'training': _training,
    'two processes': _processes,
}
"""How each section is drawn, in the order of the report."""
