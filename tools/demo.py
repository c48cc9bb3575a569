"""The whole story in some minutes: train, compress, export, transfer, compare.

A small ViT learns scikit-learn's handwritten digits; CAIT halves its MACs by
merging tokens and pruning channels; both models become backbones of UperNet
on scenes of digits. One table sets accuracy, mIoU, cost and speed side by
side, one picture shows what both segmentors see. No download, no GPU. What
the tools say goes to demo.log in the folder of the results.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dataset_converters.digits import make_digits
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from mmvitcompress.utils import cli
from mmvitcompress.utils.checks import check_positive

ROOT = Path(__file__).resolve().parents[1]
SEGMENTORS = {
    method: f'configs/upernet_{method.lower()}_vit_micro_digits.py'
    for method in ('dense', 'CAIT')
}
PARTS = ('backbone', 'encoder', 'overall')
# fewer than in the configs, whose schedules follow; CDCP needs twelve epochs
EPOCHS, CAIT_EPOCHS, ITERATIONS = 30, 14, 60
SETTLE = 'custom_hooks.0.settle_epochs=4'
STEP = re.compile(r'(?:Epoch|Iter)\(train\)\s+\[\s*(\d+)')
ROWS = {'top-1': '%', 'mIoU': '%', 'GMACs': '', 'params': 'M'}
ROWS |= dict.fromkeys(PARTS, 'ms')


def parse_args():
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add('--out', default='work_dirs/demo', help='folder for all results')
    add('--data', default='data/digits', help='folder of the digits')
    add('--batch-size', type=int, default=8, help='when timed')
    add('--repeats', type=int, default=10, help='when timed')
    cli.add_json(parser)
    return parser.parse_args()


def run(args, title: str, tool: str, *words: str | Path, steps=None) -> None:
    """Run one of our tools as a user would; the screen shows how far it is.

    Args:
        args: The demo's.
        title: What to call it.
        tool: The tool's name.
        *words: Its arguments.
        steps: How many epochs or iterations it trains for.
    """
    command = [f'tools/{tool}.py', *map(str, words)]
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    data = str(Path(args.data).resolve())
    env = {**os.environ, 'DIGITS_ROOT': data, 'PYTHONPATH': path}
    log = Path(args.out, 'demo.log')
    with (
        log.open('a') as file,
        shown(title, steps) as show,
        started([sys.executable, *command], env) as process,
    ):
        print(f'$ python {" ".join(command)}', file=file, flush=True)
        for line in process.stdout:
            file.write(line)
            if step := STEP.search(line):
                show(int(step[1]))
    if process.returncode:
        tail = ''.join(log.read_text().splitlines(True)[-12:])
        sys.exit(
            f'{tail}\ndemo.py: error: {title}: tools/{tool}.py ended with '
            f'status {process.returncode}; all that it said is in {log}'
        )


@contextmanager
def shown(title: str, steps: int | None) -> Iterator:
    """A stage on the screen: a bar, or a line where there is no screen."""
    columns = TextColumn('{task.description:40}'), BarColumn(20)
    with Progress(*columns, TimeElapsedColumn()) as bar:
        if bar.console.is_terminal:
            stage = bar.add_task(title, total=steps)
        else:
            print(title, flush=True)
            stage = bar.add_task(title, visible=False)
        yield lambda step: bar.update(stage, completed=step)
        bar.update(stage, total=steps or 1, completed=steps or 1)


@contextmanager
def started(command: list[str], env: dict) -> Iterator[subprocess.Popen]:
    """A tool with its workers, all of which end when we do."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors='replace',
        start_new_session=True,
    )
    try:
        yield process
        process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def train(args, title: str, config: str, length: str, *options: str) -> Path:
    """Train in a folder of the config's name, and validate at the end.

    ``length`` is ``max_epochs`` or ``max_iters``, ``=`` and how many.
    """
    folder = Path(args.out, Path(config).stem).resolve()
    steps = int(length.partition('=')[2])
    settings = (
        'randomness.seed=0',
        f'train_cfg.{length}',
        f'train_cfg.val_interval={steps}',
    )
    words = (f'--work-dir={folder}', '--cfg-options', *settings)
    run(args, title, 'train', config, *words, *options, steps=steps)
    return folder


def last_metric(folder: Path, name: str) -> float:
    """The last value of a metric in a run's log, in percent."""
    scalars = max(folder.glob('*/vis_data/scalars.json'))
    lines = map(json.loads, scalars.read_text().splitlines())
    return [line[name] for line in lines if name in line][-1]


def classifiers(args) -> dict[str, tuple[Path, float]]:
    """Checkpoint and top-1 of the dense and of the compressed classifier."""
    config = 'configs/imagenet/cait_vit_micro_digits.py'
    base = 'configs/imagenet/pretrain_vit_micro_digits.py'
    title, length = 'train a ViT on digits', f'max_epochs={EPOCHS}'
    dense = train(args, title, base, length)
    weights = dense / f'epoch_{EPOCHS}.pth'
    start = f'model.backbone.checkpoint={weights}'
    title = 'merge its tokens, prune its channels'
    length = f'max_epochs={CAIT_EPOCHS}'
    cait = train(args, title, config, length, start, SETTLE)
    small = cait / 'small.pth'
    large = cait / f'epoch_{CAIT_EPOCHS}.pth'
    run(args, 'export it', 'export_pruned', config, large, small)
    figures = cait / 'test.json'
    run(args, 'test it', 'test', config, small, f'--json={figures}')
    return {
        'dense': (weights, last_metric(dense, 'top1')),
        'CAIT': (small, json.loads(figures.read_text())['top1']),
    }


def segmentor(args, method: str, backbone: Path) -> tuple[Path, float]:
    """Checkpoint and mIoU of UperNet on top of a classifier's backbone."""
    start = f'model.backbone.checkpoint={backbone}'
    title = f'train UperNet on the {method} ViT'
    length = f'max_iters={ITERATIONS}'
    folder = train(args, title, SEGMENTORS[method], length, start)
    return folder / f'iter_{ITERATIONS}.pth', last_metric(folder, 'mIoU')


def speed(args, weights: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Cost of both segmentors, and their times, taken in turn."""
    figures = Path(args.out, 'speed.json').resolve()
    words = (
        SEGMENTORS['CAIT'],
        f'--baseline={SEGMENTORS["dense"]}',
        f'--checkpoint={weights["CAIT"]}',
        f'--baseline-checkpoint={weights["dense"]}',
        f'--batch-size={args.batch_size}',
        f'--repeats={args.repeats}',
        f'--json={figures}',
        '--device=cpu',
    )
    run(args, 'time both UperNets', 'benchmark', *words)
    found = json.loads(figures.read_text())
    rows = {'dense': found['baseline'], 'CAIT': found['candidates'][0]}
    return {
        method: {
            'GMACs': row['macs'] / 1e9,
            'params': row['params'] / 1e6,
            **{part: row[f'{part}_ms']['median'] for part in PARTS},
        }
        for method, row in rows.items()
    }


def picture(args, weights: dict[str, Path]) -> Path:
    """Image, truth and predictions of four validation scenes."""
    path = Path(args.out, 'demo.png').resolve()
    cait, dense = ((SEGMENTORS[m], weights[m]) for m in ('CAIT', 'dense'))
    words = ('compare', *cait, '--dense', *dense, f'--out={path}')
    run(args, 'draw what they see', 'visualize', *words)
    return path


def describe(results: dict, args, minutes: float) -> str:
    """All figures as a table."""
    lines = [
        '\nDigits: classifier at 32×32 px; UperNet on scenes of 128×128 px. '
        f'One seed. Times: medians of {args.repeats} for a batch of '
        f'{args.batch_size} on the CPU, float32. {minutes:.1f} minutes in '
        'all.',
        f'{"":12}{"dense":>10}{"CAIT":>10}{"gain":>10}',
    ]
    for name, unit in ROWS.items():
        dense, cait = (figures[name] for figures in results.values())
        gain = '' if unit == '%' else f'{dense / cait:.2f}×'
        form = '>10.3f' if name == 'GMACs' else '>10.1f'
        label = f'{name} {unit}'
        lines.append(f'{label:12}{dense:{form}}{cait:{form}}{gain:>10}')
    return '\n'.join(line.rstrip() for line in lines)


def main():
    args = parse_args()
    check_positive('--batch-size', args.batch_size)
    check_positive('--repeats', args.repeats)
    start = time.perf_counter()
    # make and others end us by it; what we have started must end as well
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    Path(args.out).mkdir(parents=True, exist_ok=True)
    Path(args.out, 'demo.log').unlink(missing_ok=True)
    make_digits(args.data)
    results, weights = {}, {}
    for method, (path, top1) in classifiers(args).items():
        weights[method], miou = segmentor(args, method, path)
        results[method] = {'top-1': top1, 'mIoU': miou}
    for method, figures in speed(args, weights).items():
        results[method].update(figures)
    path = picture(args, weights)
    minutes = (time.perf_counter() - start) / 60
    print(describe(results, args, minutes))
    print(f'picture: {path}')
    if args.json:
        cli.write_json(args.json, results)


if __name__ == '__main__':
    cli.run(main)
