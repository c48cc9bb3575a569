"""The whole story in some minutes: train, compress, export, transfer, compare.

A small ViT learns scikit-learn's handwritten digits; CAIT halves its MACs by
merging tokens and pruning channels; both models become backbones of UperNet
on scenes of digits. One table sets accuracy, mIoU, cost and speed side by
side, one picture shows what both segmentors see. No download, no GPU.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from dataset_converters.digits import make_digits

from mmvitcompress.utils import cli

ROOT = Path(__file__).resolve().parents[1]
SEGMENTORS = {
    method: f'configs/upernet_{method.lower()}_vit_micro_digits.py'
    for method in ('dense', 'CAIT')
}
PARTS = ('backbone', 'encoder', 'overall')
ROWS = {'top-1': '%', 'mIoU': '%', 'GMACs': '', 'params': 'M'}
ROWS |= dict.fromkeys(PARTS, 'ms')


def parse_args():
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add('--out', default='work_dirs/demo', help='folder for all results')
    add('--data', default='data/digits', help='folder of the digits')
    add('--batch-size', type=int, default=8, help='when timed')
    add('--repeats', type=int, default=20, help='when timed')
    add('--json', metavar='FILE', help='write the figures')
    return parser.parse_args()


def run(args, tool: str, *words: str | Path) -> None:
    """Run one of our tools as a user would."""
    command = [f'tools/{tool}.py', *map(str, words)]
    print(f'\n$ python {" ".join(command)}', flush=True)
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    data = str(Path(args.data).resolve())
    env = {**os.environ, 'DIGITS_ROOT': data, 'PYTHONPATH': path}
    subprocess.run([sys.executable, *command], check=True, cwd=ROOT, env=env)


def train(args, config: str, *options: str) -> Path:
    """Train in a folder of the config's name; returns the folder."""
    folder = Path(args.out, Path(config).stem).resolve()
    words = (f'--work-dir={folder}', '--cfg-options', 'randomness.seed=0')
    run(args, 'train', config, *words, *options)
    return folder


def last_metric(folder: Path, name: str) -> float:
    """The last value of a metric in a run's log, in percent."""
    scalars = max(folder.glob('*/vis_data/scalars.json'))
    lines = map(json.loads, scalars.read_text().splitlines())
    return [line[name] for line in lines if name in line][-1]


def classifiers(args) -> dict[str, tuple[Path, float]]:
    """Checkpoint and top-1 of the dense and of the compressed classifier."""
    config = 'configs/imagenet/cait_vit_micro_digits.py'
    dense = train(args, 'configs/imagenet/pretrain_vit_micro_digits.py')
    weights = dense / 'epoch_45.pth'
    start = f'model.backbone.checkpoint={weights}'
    cait = train(args, config, start)
    small = cait / 'small.pth'
    run(args, 'export_pruned', config, cait / 'epoch_45.pth', small)
    figures = cait / 'test.json'
    run(args, 'test', config, small, f'--json={figures}')
    return {
        'dense': (weights, last_metric(dense, 'top1')),
        'CAIT': (small, json.loads(figures.read_text())['top1']),
    }


def segmentor(args, method: str, backbone: Path) -> tuple[Path, float]:
    """Checkpoint and mIoU of UperNet on top of a classifier's backbone."""
    start = f'model.backbone.checkpoint={backbone}'
    folder = train(args, SEGMENTORS[method], start)
    return folder / 'iter_200.pth', last_metric(folder, 'mIoU')


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
    run(args, 'benchmark', *words)
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
    run(args, 'visualize', *words)
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
    start = time.perf_counter()
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
