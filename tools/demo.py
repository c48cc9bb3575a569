"""What merging tokens does to a segmentor, from nothing, in some minutes.

Lays scikit-learn's handwritten digits out as scenes, trains UperNet on them
with a dense and with a token-merged ViT, and prints quality, cost and speed of
both side by side. Needs no download and no GPU.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope

from mmvitcompress import cli
from mmvitcompress.analysis.complexity import model_complexity
from mmvitcompress.analysis.pictures import save, segmentation_grid
from mmvitcompress.analysis.timing import time_parts
from mmvitcompress.checkpoint import load_strict, read_checkpoint
from mmvitcompress.datasets.digits import make_digits

ROOT = Path(__file__).resolve().parents[1]
METHODS = ('dense', 'atme')
SHAPE = (128, 128)
COLUMNS = (
    ('mIoU', '%', '{:.1f}'),
    ('GMACs', '', '{:.3f}'),
    ('params', 'M', '{:.2f}'),
    ('backbone', 'ms', '{:.1f}'),
    ('encoder', 'ms', '{:.1f}'),
    ('overall', 'ms', '{:.1f}'),
)


def parse_args():
    parser = cli.parser(__doc__)
    parser.add_argument(
        '--out', default='work_dirs/demo', help='folder for all results'
    )
    parser.add_argument(
        '--data', default='data/digits', help='folder of the digits'
    )
    parser.add_argument(
        '--iters', type=int, default=200, help='training iterations'
    )
    parser.add_argument('--batch-size', type=int, default=8, help='when timed')
    parser.add_argument('--repeats', type=int, default=20, help='when timed')
    parser.add_argument('--json', metavar='FILE', help='write the figures')
    return parser.parse_args()


def config_of(method: str) -> str:
    return f'configs/upernet_{method}_vit_micro_digits.py'


def train(method: str, args) -> float:
    """Train by tools/train.py; returns the last mIoU in percent."""
    work_dir = Path(args.out, method).resolve()
    iters = args.iters
    command = [
        sys.executable,
        'tools/train.py',
        config_of(method),
        f'--work-dir={work_dir}',
        '--cfg-options',
        'randomness.seed=0',
        f'train_cfg.max_iters={iters}',
        f'train_cfg.val_interval={iters}',
        f'default_hooks.checkpoint.interval={iters}',
        f'param_scheduler.1.end={iters}',
    ]
    data = str(Path(args.data).resolve())
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    env = {**os.environ, 'DIGITS_ROOT': data, 'PYTHONPATH': path}
    subprocess.run(command, check=True, cwd=ROOT, env=env)
    scalars = max(work_dir.glob('*/vis_data/scalars.json'))
    lines = map(json.loads, scalars.read_text().splitlines())
    return [line['mIoU'] for line in lines if 'mIoU' in line][-1]


def trained_model(method: str, args) -> torch.nn.Module:
    config = Config.fromfile(ROOT / config_of(method))
    init_default_scope(config.default_scope)
    model = revert_sync_batchnorm(MODELS.build(config.model))
    path = Path(args.out, method, f'iter_{args.iters}.pth')
    load_strict(model, read_checkpoint(path)[0], path)
    return model.eval()


def picture(models: dict, args) -> Path:
    """Image, truth and predictions of four validation scenes."""
    config = Config.fromfile(ROOT / config_of('dense'))
    dataset = {
        **config.val_dataloader.dataset,
        'data_root': args.data,
    }
    from mmseg.registry import DATASETS

    scenes = DATASETS.build(dataset)
    samples = [scenes[i] for i in range(4)]
    maps = {
        'truth': [
            s['data_samples'].gt_sem_seg.data[0].numpy() for s in samples
        ]
    }
    for method, model in models.items():
        batch = {
            key: [s[key] for s in samples]
            for key in ('inputs', 'data_samples')
        }
        with torch.inference_mode():
            results = model.test_step(batch)
        maps[method] = [r.pred_sem_seg.data[0].numpy() for r in results]
    images = [s['inputs'].flip(0).permute(1, 2, 0).numpy() for s in samples]
    figure = segmentation_grid(
        images, maps, scenes.metainfo['classes'], 'UperNet on digit scenes'
    )
    path = Path(args.out, 'demo.png')
    save(figure, path)
    return path


def main():
    args = parse_args()
    make_digits(args.data)
    results = {method: {'mIoU': train(method, args)} for method in METHODS}

    models = {method: trained_model(method, args) for method in METHODS}
    images = torch.randn(args.batch_size, 3, *SHAPE)
    times = time_parts(
        models, images, args.repeats, parts=('backbone', 'encoder', 'overall')
    )
    for method, model in models.items():
        total = model_complexity(model, SHAPE)['total']
        results[method].update(
            GMACs=total['macs'] / 1e9,
            params=total['params'] / 1e6,
            **{part: t['median'] for part, t in times[method].items()},
        )
    path = picture(models, args)
    print_table(results, args)
    print(f'picture: {path}')
    if args.json:
        cli.write_json(args.json, results)


def print_table(results: dict, args) -> None:
    print(
        f'\nUperNet on digit scenes of 128×128 px after {args.iters} '
        f'iterations; times: medians of {args.repeats} for a batch of '
        f'{args.batch_size} on {torch.get_num_threads()} CPU threads, float32'
    )
    heads = [f'{name} {unit}'.strip() for name, unit, _ in COLUMNS]
    print(f'{"":8}' + ''.join(f'{head:>13}' for head in heads))
    for method, row in results.items():
        cells = [form.format(row[name]) for name, _, form in COLUMNS]
        print(f'{method:8}' + ''.join(f'{cell:>13}' for cell in cells))
    gains = [
        f'{results["dense"][name] / results["atme"][name]:.2f}×'
        if name != 'mIoU'
        else ''
        for name, *_ in COLUMNS
    ]
    print(f'{"gain":8}' + ''.join(f'{gain:>13}' for gain in gains))


if __name__ == '__main__':
    cli.run(main)
