"""Quality against cost, from what the tools have measured.

A result is a dict of builtin types::

    {"name": "CAIT", "quality": 63.4, "metric": "top-1 (%)",
     "macs": 32854272, "latency_ms": 11.7, "series": "CAIT", "spread": 0.3}

``name``, ``quality`` and at least one of ``macs`` (of one image) and
``latency_ms`` (of a batch) are needed. Results of one ``series`` are joined
by a line; a ``spread`` of the quality, such as a standard deviation over
seeds, is drawn as a bar.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import ClassVar

from mmengine.fileio import load

from mmvitcompress.engine.backbone_flag import run_name
from mmvitcompress.errors import ConfigError
from mmvitcompress.evaluation.comparison import QUALITIES
from mmvitcompress.visualization import base, style

COSTS = ('macs', 'latency_ms')
MARKERS = 'osD^vP*X'


def _read(path: str | Path) -> dict | list:
    try:
        return load(path, file_format='json')
    except FileNotFoundError:
        raise ConfigError(
            f'file {str(path)!r} not found; correct its path'
        ) from None
    except ValueError as error:  # JSON's and UTF-8's
        raise ConfigError(
            f'file {str(path)!r} is not JSON: {error}; give one of '
            'tools/benchmark.py or tools/test.py'
        ) from None


def read_results(path: str | Path) -> list[dict]:
    """Results from a JSON list.

    Raises:
        ConfigError: If the file is missing, or a result lacks something.
    """
    content = _read(path)
    if not isinstance(content, list) or not content:
        raise ConfigError(
            f'file {str(path)!r} must hold a list of results, but got '
            f'{type(content).__name__}; for files of tools/benchmark.py use '
            '--benchmark and --metrics'
        )
    for result in content:
        known = result if isinstance(result, dict) else {}
        quality, *costs = (
            isinstance(known.get(key), int | float)
            for key in ('quality', *COSTS)
        )
        if not (isinstance(known.get('name'), str) and quality and any(costs)):
            raise ConfigError(
                f'a result in {str(path)!r} must have a name, a quality, and '
                f'macs or latency_ms, but got {result!r}'
            )
    return content


def join_results(
    benchmark: str | Path,
    metrics: Sequence[str | Path],
    names: Sequence[str] | None = None,
    part: str = 'overall',
) -> list[dict]:
    """Results from what tools/benchmark.py and tools/test.py have written.

    Args:
        benchmark: The file of ``tools/benchmark.py --json``.
        metrics: Of each of its models, the baseline first, the file of
            ``tools/test.py --json``.
        names: What to call them. Defaults to the configs' names.
        part: Whose latency counts: 'backbone', 'encoder' or 'overall'.
            Defaults to 'overall'.

    Raises:
        ConfigError: If the files don't fit together.
    """
    content = _read(benchmark)
    if not isinstance(content, dict) or 'candidates' not in content:
        raise ConfigError(
            f'file {str(benchmark)!r} must be one that tools/benchmark.py '
            '--json has written'
        )
    rows = [content.get('baseline'), *content['candidates']]
    rows = [row for row in rows if row]
    names = names or [
        run_name(row['config'], row.get('backbone')) for row in rows
    ]
    for what, given in (('metrics', metrics), ('names', names)):
        if len(given) != len(rows):
            raise ConfigError(
                f'{str(benchmark)!r} holds {len(rows)} models (the baseline '
                f'first), but got {len(given)} {what}'
            )
    results = []
    for row, file, name in zip(rows, metrics, names):
        time = row.get(f'{part}_ms')
        if not time:
            raise ConfigError(
                f'{str(benchmark)!r} holds no time of the {part} of '
                f'{row["config"]}; choose another part'
            )
        cost = dict(macs=row['macs'], latency_ms=time['median'])
        batch = dict(batch_size=content.get('batch_size'))
        results.append(dict(name=name, **_quality(file), **cost, **batch))
    return results


def _quality(path: str | Path) -> dict:
    values = _read(path)
    for key, label in QUALITIES.items():
        if isinstance(values, dict) and key in values:
            return {'quality': values[key], 'metric': label}
    raise ConfigError(
        f'file {str(path)!r} holds none of the metrics '
        f'{", ".join(QUALITIES)}; give what tools/test.py --json '
        'has written'
    )


def draw_curve(results: Sequence[Mapping]) -> style.Figure:
    """Draw quality over MACs and over latency, as far as they are known.

    Names stand at their points; where they would hide one another, a legend
    names the series, the best first.

    Raises:
        ConfigError: If there are no results.
    """
    if not results:
        raise ConfigError(
            'there are no results to draw: give JSON lists of results, or '
            '--benchmark and --metrics'
        )
    costs = [c for c in COSTS if any(r.get(c) is not None for r in results)]
    figure = style.Figure(figsize=(5 * len(costs), 4.2), layout='constrained')
    axes = figure.subplots(1, len(costs), squeeze=False, sharey=True)[0]
    giga = any((result.get('macs') or 0) >= 1e9 for result in results)
    batches = {result.get('batch_size') for result in results} - {None}
    batch = f' for a batch of {batches.pop()}' if len(batches) == 1 else ''
    letter, macs = ('G', 1e9) if giga else ('M', 1e6)
    scales = {
        'macs': (f'MACs of one image ({letter})', macs),
        'latency_ms': (f'latency{batch} (ms)', 1),
    }
    for axis, cost in zip(axes, costs):
        label, unit = scales[cost]
        _draw_series(axis, results, cost, unit)
        axis.set_xlabel(label)
        axis.grid(color='#eeeeee')
        axis.set_axisbelow(True)
        axis.margins(0.25, 0.1)
        axis.set_xlim(left=0)
    metrics = {result.get('metric') for result in results} - {None}
    axes[0].set_ylabel(' / '.join(sorted(metrics)) or 'quality')
    title = 'Quality against cost (better: up and to the left)'
    figure.suptitle(title, fontsize=11)
    figure.draw_without_rendering()
    if not all(map(_legible, axes)):
        _list_names(figure)
    return figure


def _legible(axis: style.Axes) -> bool:
    """Whether names stay in the axes and clear of one another."""
    right = axis.bbox.x1
    boxes = [name.get_window_extent() for name in axis.texts]
    return all(box.x1 <= right for box in boxes) and not any(
        a.overlaps(b) for a, b in combinations(boxes, 2)
    )


def _list_names(figure: style.Figure) -> None:
    """A legend of series, the best first, in place of names at the points."""
    lines = {}
    for axis in figure.axes:
        for name in [*axis.texts]:
            name.remove()
        for line in axis.containers:
            lines.setdefault(line.get_label(), line)
        axis.margins(0.1, 0.1)
        axis.set_xlim(left=0)
    best = {name: max(line[0].get_ydata()) for name, line in lines.items()}
    order = sorted(lines, key=best.get, reverse=True)
    figure.set_figwidth(figure.get_figwidth() + 2.5)
    figure.set_figheight(max(figure.get_figheight(), 0.18 * len(order) + 0.8))
    figure.legend(
        *([lines[name] for name in order], order),
        loc='outside right center',
        fontsize=8,
        frameon=False,
    )


def _draw_series(
    axis: style.Axes, results: Sequence[Mapping], cost: str, unit: float
) -> None:
    series = {}
    for result in results:
        points = series.setdefault(result.get('series') or result['name'], [])
        if result.get(cost) is not None:
            at = (result[cost] / unit, result['quality'])
            spread = result.get('spread') or 0
            points.append((*at, result['name'], spread))
    for index, (key, points) in enumerate(series.items()):
        if not points:
            continue
        x, y, labels, spreads = zip(*sorted(points))
        turn = index // len(style.SERIES)  # pairs of both come but once
        axis.errorbar(
            *(x, y),
            yerr=spreads if any(spreads) else None,
            capsize=3,
            elinewidth=1,
            color=style.SERIES[index % len(style.SERIES)],
            marker=MARKERS[(index + turn) % len(MARKERS)],
            label=key,
            markersize=7,
            linewidth=1.5,
        )
        look = dict(
            textcoords='offset points',
            va='center',
            fontsize=8,
            in_layout=False,
        )
        for *point, label in zip(x, y, labels):
            axis.annotate(label, point, xytext=(8, 0), **look)


class Curve(base.Kind):
    """Quality against cost."""

    about = 'accuracy or mIoU over MACs and over latency'
    caption = (
        'Quality against cost: better is up and to the left. Points of one '
        'colour and line are one method at several sizes.'
    )

    arguments: ClassVar = {
        'results': dict(
            nargs='*', metavar='RESULTS', help='JSON lists of results'
        ),
        '--benchmark': dict(**base.FILE, help='of tools/benchmark.py --json'),
        '--metrics': dict(
            **base.FILE,
            nargs='+',
            help='of tools/test.py --json for each of its models, baseline '
            'first',
        ),
        '--names': dict(**base.WORDS, help='what to call the models'),
        '--part': dict(
            choices=['backbone', 'encoder', 'overall'],
            default='overall',
            help='whose time counts',
        ),
    }

    def view(
        self,
        results: Sequence[str] = (),
        benchmark: str | None = None,
        metrics: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        part: str = 'overall',
    ) -> base.View:
        """Read files of results, and those of the tools."""
        every = [r for path in results for r in read_results(path)]
        if not (benchmark and metrics) and (benchmark or metrics or names):
            raise ConfigError(
                '--benchmark and --metrics need each other, and --names both'
            )
        if benchmark:
            every += join_results(benchmark, metrics, names, part)
        return base.View(lambda rows: draw_curve(every))
