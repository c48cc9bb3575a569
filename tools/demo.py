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

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, init_default_scope

from mmvitcompress import cli
from mmvitcompress.analysis.complexity import model_complexity
from mmvitcompress.analysis.timing import time_parts
from mmvitcompress.checkpoint import load_strict, read_checkpoint
from mmvitcompress.datasets.digits import make_digits
from mmvitcompress.visualization import save, segmentation_grid

ROOT = Path(__file__).resolve().parents[1]
SHAPE = (128, 128)
COLUMNS = (
    # name, unit, format, whether less is better
    ('top-1', '%', '{:.1f}', False),
    ('mIoU', '%', '{:.1f}', False),
    ('GMACs', '', '{:.3f}', True),
    ('params', 'M', '{:.2f}', True),
    ('backbone', 'ms', '{:.1f}', True),
    ('encoder', 'ms', '{:.1f}', True),
    ('overall', 'ms', '{:.1f}', True),
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
        '--iters', type=int, default=200, help='iterations of each UperNet'
    )
    parser.add_argument('--batch-size', type=int, default=8, help='when timed')
    parser.add_argument('--repeats', type=int, default=20, help='when timed')
    parser.add_argument('--json', metavar='FILE', help='write the figures')
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


def segmentor(args, method: str, backbone: Path) -> tuple[float, object]:
    """mIoU and model of UperNet on top of a classifier's backbone."""
    config = f'configs/upernet_{method.lower()}_vit_micro_digits.py'
    options = {
        'model.backbone.checkpoint': str(backbone),
        'train_cfg.max_iters': args.iters,
        'train_cfg.val_interval': args.iters,
        'default_hooks.checkpoint.interval': args.iters,
        'param_scheduler.1.end': args.iters,
    }
    folder = train(args, config, *(f'{k}={v}' for k, v in options.items()))
    cfg = Config.fromfile(ROOT / config)
    cfg.model.backbone.checkpoint = str(backbone)
    init_default_scope(cfg.default_scope)
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    path = folder / f'iter_{args.iters}.pth'
    load_strict(model, read_checkpoint(path)[0], path)
    return last_metric(folder, 'mIoU'), model.eval()


def picture(args, models: dict) -> Path:
    """Image, truth and predictions of four validation scenes."""
    cfg = Config.fromfile(ROOT / 'configs/upernet_dense_vit_micro_digits.py')
    dataset = {**cfg.val_dataloader.dataset, 'data_root': args.data}
    scenes = DATASETS.build(dataset)
    samples = [scenes[i] for i in range(4)]
    maps = {
        'truth': [
            s['data_samples'].gt_sem_seg.data[0].numpy() for s in samples
        ]
    }
    keys = ('inputs', 'data_samples')
    for method, model in models.items():
        batch = {key: [s[key] for s in samples] for key in keys}
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


def print_table(results: dict, args, minutes: float) -> None:
    print(
        f'\nDigits: classifier at 32×32 px; UperNet on scenes of 128×128 px '
        f'after {args.iters} iterations. One seed. Times: medians of '
        f'{args.repeats} for a batch of {args.batch_size} on '
        f'{torch.get_num_threads()} CPU threads, float32. '
        f'{minutes:.1f} minutes in all.'
    )
    heads = [f'{name} {unit}'.strip() for name, unit, *_ in COLUMNS]
    print(f'{"":8}' + ''.join(f'{head:>13}' for head in heads))
    for method, row in results.items():
        cells = [form.format(row[name]) for name, _, form, _ in COLUMNS]
        print(f'{method:8}' + ''.join(f'{cell:>13}' for cell in cells))
    dense, cait = results.values()
    gains = [
        f'{dense[name] / cait[name]:.2f}×' if less else ''
        for name, _, _, less in COLUMNS
    ]
    print(f'{"gain":8}' + ''.join(f'{gain:>13}' for gain in gains))


def main():
    args = parse_args()
    start = time.perf_counter()
    make_digits(args.data)
    results, models = {}, {}
    for method, (path, top1) in classifiers(args).items():
        miou, models[method] = segmentor(args, method, path)
        results[method] = {'top-1': top1, 'mIoU': miou}
    images = torch.randn(args.batch_size, 3, *SHAPE)
    parts = ('backbone', 'encoder', 'overall')
    times = time_parts(models, images, args.repeats, parts=parts)
    for method, model in models.items():
        total = model_complexity(model, SHAPE)['total']
        results[method].update(
            GMACs=total['macs'] / 1e9,
            params=total['params'] / 1e6,
            **{part: t['median'] for part, t in times[method].items()},
        )
    path = picture(args, models)
    minutes = (time.perf_counter() - start) / 60
    print_table(results, args, minutes)
    print(f'picture: {path}')
    if args.json:
        cli.write_json(args.json, results)


if __name__ == '__main__':
    cli.run(main)
