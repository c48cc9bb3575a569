"""Compare methods on one task: one table, one picture.

Every config is trained with every seed, exported and tested, one after the
other; what is done is kept in the work dir and not done again, so that a
comparison goes on where it was interrupted, and grows by configs and seeds.
Differences to the baseline are taken seed by seed. At last the exported
models of the first seed are timed side by side. A table (configs/tables) is
one file for many rows: a baseline, and what each row changes in it.
"""

import json
import subprocess
import sys
from pathlib import Path

from mmvitcompress.analysis.candidates import write_rows
from mmvitcompress.errors import ConfigError, RunError
from mmvitcompress.evaluation.comparison import (
    QUALITIES,
    Cell,
    comparison_table,
    metric_of,
    summary,
)
from mmvitcompress.utils import cli

TOOLS = Path(__file__).resolve().parent


def parse_args():
    parser = cli.parser(__doc__.strip())
    add = parser.add_argument
    add('configs', nargs='*', metavar='CONFIG', help='what to compare')
    add('--table', metavar='FILE', help='take baseline and configs from it')
    add(
        '--rows',
        nargs='+',
        metavar='ROW',
        help='of the table; by default all of them',
    )
    add(
        '--baseline',
        metavar='CONFIG',
        help='what the others are compared with, as a rule the dense model',
    )
    add('--seeds', type=int, nargs='+', default=[0, 1, 2], metavar='N')
    add('--work-dir', default='work_dirs/compare', metavar='DIR')
    add('--metric', help='such as mIoU; by default what the task is known by')
    add(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='override settings of all configs',
    )
    add(
        '--repeats',
        type=int,
        default=20,
        metavar='N',
        help='timed runs of each model; 0 times nothing',
    )
    add('--batch-size', type=int, default=1, help='images at once when timed')
    add('--out', metavar='FILE', help='picture of quality against cost')
    cli.add_json(parser)
    return parser.parse_args()


def choose_configs(args) -> None:
    """Take the configs from the table, if there is one."""
    if not args.table:
        if args.rows or not (args.baseline and args.configs):
            raise ConfigError(
                'give what to compare and a --baseline, or a --table, of '
                'which --rows chooses'
            )
        return
    if args.configs or args.baseline:
        raise ConfigError('--table names the configs: give no others')
    rows = write_rows(args.table, Path(args.work_dir, 'configs'), args.rows)
    args.baseline, *args.configs = map(str, rows)


def cells(args) -> dict[str, list[Cell]]:
    """Every config's cells, the baseline's first."""
    configs = list(dict.fromkeys([args.baseline, *args.configs]))
    names = [Path(config).stem for config in configs]
    seeds = list(dict.fromkeys(args.seeds))
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f'two configs are called {name}; their runs would lie in one '
                'folder, rename one'
            )
    if min(seeds) < 0 or args.repeats < 0 or args.batch_size < 1:
        raise ConfigError(
            '--seeds and --repeats must be at least 0, --batch-size at least '
            f'1, but got {seeds}, {args.repeats} and {args.batch_size}'
        )
    options = tuple(args.cfg_options)
    root = Path(args.work_dir)
    return {
        name: [Cell(config, seed, root, options) for seed in seeds]
        for name, config in zip(names, configs)
    }


def run(every: dict[str, list[Cell]]) -> dict[str, dict[int, dict]]:
    """Results by name and seed; all configs with one seed, then the next."""
    for column in every.values():
        column[0].settings()  # a wrong config is noticed before the first run
    results = {name: {} for name in every}
    rounds = list(zip(*every.values()))
    count = len(rounds) * len(every)
    for number, cell in enumerate((c for r in rounds for c in r), 1):

        def say(step: str, cell=cell, number=number):
            where = f'[{number}/{count}] {cell.name}, seed {cell.seed}'
            print(f'{where}: {step}, log in {cell.folder}', flush=True)

        results[cell.name][cell.seed] = cell.run(TOOLS, say)
    return results


def add_times(rows: list[dict], every: dict[str, list[Cell]], args) -> None:
    """Time the exported models of the first seed in turn."""
    first = [every[row['name']][0] for row in rows]
    out = Path(args.work_dir, 'benchmark.json')
    baseline, *others = first
    command = [
        *(sys.executable, str(TOOLS / 'benchmark.py')),
        *(cell.config for cell in others or first),
        *('--checkpoint', *(str(c.exported) for c in others or first)),
        *('--baseline', baseline.config),
        *('--baseline-checkpoint', str(baseline.exported)),
        *('--repeats', str(args.repeats)),
        *('--batch-size', str(args.batch_size)),
        *('--json', str(out)),
    ]
    if args.cfg_options:
        command += ['--cfg-options', *args.cfg_options]
    if subprocess.run(command).returncode:
        raise RunError('timing failed (see above); --repeats 0 skips it')
    figures = json.loads(out.read_text())
    timed = [figures['baseline'], *figures['candidates'][: len(others)]]
    for row, figure in zip(rows, timed):
        for part in ('backbone', 'encoder', 'overall'):
            row[f'{part}_ms'] = figure[f'{part}_ms']['median']


def draw(rows: list[dict], metric: str, args) -> None:
    """Quality against MACs, and against time where it was taken."""
    from mmvitcompress.visualization import style
    from mmvitcompress.visualization.curve import draw_curve

    results = [
        dict(
            name=row['name'],
            quality=row['mean'],
            spread=row['spread'],
            metric=QUALITIES.get(metric, metric),
            macs=row['macs'],
            latency_ms=row.get('overall_ms'),
            batch_size=args.batch_size,
        )
        for row in rows
    ]
    style.save_figure(draw_curve(results), args.out)
    print(f'picture: {args.out}')


def main():
    args = parse_args()
    choose_configs(args)
    every = cells(args)
    if args.out:
        from mmvitcompress.visualization import style

        style.check_format(args.out)
    results = run(every)
    metric = metric_of(
        [r for runs in results.values() for r in runs.values()], args.metric
    )
    rows = summary(results, Path(args.baseline).stem, metric)
    if args.repeats:
        add_times(rows, every, args)
    print(comparison_table(rows, metric))
    if args.out:
        draw(rows, metric, args)
    if args.json:
        cli.write_json(args.json, dict(metric=metric, rows=rows))


if __name__ == '__main__':
    cli.run(main)
