"""Time backbone, neck, head, encoder and overall of configs side by side.

Encoder means backbone, restoring and pyramid. No data set is needed: weights
and images are random unless given. All parts of candidates and baseline
take turns run by run; figures are medians. What is timed is the network up to
its raw outputs, without pre- and post-processing; RoI heads get a fixed number
of regions.
"""

from itertools import product

import torch

from mmvitcompress.analysis import benchmark, report
from mmvitcompress.analysis.candidates import (
    build_candidate,
    choose_device,
    common_shape,
    with_method,
)
from mmvitcompress.analysis.configs import load_config
from mmvitcompress.analysis.images import make_images
from mmvitcompress.analysis.timing import CLOCKS
from mmvitcompress.deploy.optimize import optimize_for_inference
from mmvitcompress.engine.config import add_overrides
from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens import METHODS
from mmvitcompress.utils import cli

DTYPES = {'bf16': torch.bfloat16, 'fp16': torch.float16}


def parse_args():
    parser = cli.parser(__doc__.strip())
    add = parser.add_argument
    add('configs', nargs='+', metavar='CONFIG', help='what to time')
    add('--baseline', metavar='CONFIG', help='what to compare with')
    add('--batch-size', type=int, default=1, help='images at once')
    shape_help = (
        'image height and width in pixels, or one number for both; by default '
        'what the configs tell. Images are padded as the models pad'
    )
    add('--shape', type=int, nargs='+', metavar='N', help=shape_help)
    part_help = (
        'time no more than this: a backbone takes a fraction of the time that '
        'heads take. MACs and parameters in the table are then its own'
    )
    parts = list(benchmark.TIMED)
    add('--part', choices=parts, default='overall', help=part_help)
    add('--device', help='such as cpu or cuda:0; by default CUDA if present')
    add('--amp', choices=sorted(DTYPES), help='run under autocast')
    add('--compile', action='store_true', help='run under torch.compile')
    optimize_help = (
        'time copies that optimize_for_inference makes of models around a '
        'ViT. MACs in the table are then those of the copies'
    )
    add('--optimize', action='store_true', help=optimize_help)
    layout_help = 'keep images and weights in channels-last order'
    add('--channels-last', action='store_true', help=layout_help)
    add('--repeats', type=int, default=20, help='measured runs of each part')
    add('--warmup', type=int, default=5, help='runs before them')
    clock_help = (
        "'cpu' counts processor time, for machines where other work runs; "
        'CUDA has its own'
    )
    add('--clock', choices=CLOCKS, default='wall', help=clock_help)
    images_help = (
        'folder of images; or random; or dataset, for the first of the '
        "config's test_dataloader. They are resized to the shape"
    )
    add('--images', default='random', metavar='SOURCE', help=images_help)
    checkpoint_help = (
        'weights, one file for each candidate: of a training run, or a '
        'backbone from tools/export_pruned.py; by default random weights'
    )
    add('--checkpoint', nargs='+', metavar='FILE', help=checkpoint_help)
    add('--baseline-checkpoint', metavar='FILE', help='the same for it')
    backbone_help = (
        'time each CONFIG with each of these backbones in place of its own: '
        'files, or names of those in configs/_base_/backbones'
    )
    target_help = (
        'time each CONFIG with token methods in turn, each of which saves '
        'this fraction of the MACs of its backbone, as planned at the shape'
    )
    add('--target', type=float, metavar='FRACTION', help=target_help)
    add(
        '--methods',
        nargs='+',
        choices=[*METHODS],
        metavar='KEY',
        help='these methods only, such as token_merging; by default all',
    )
    settings_help = 'override settings of all configs'
    add_overrides(parser, settings_help, backbone_help)
    cli.add_json(parser, 'also write the figures')
    return parser.parse_args()


def build(args) -> tuple[list, list, list]:
    """Names, configs and models of candidates; the baseline's at the end."""
    if args.target is None and args.methods:
        raise ConfigError(
            '--methods needs --target, what each of them saves of the MACs'
        )
    if args.target is not None and args.backbone:
        raise ConfigError(
            '--target plans for the own backbones of configs: leave '
            '--backbone out'
        )
    planned = [] if args.target is None else args.methods or [*METHODS]
    names = [
        dict(config=config, backbone=backbone)
        for config, backbone in product(
            args.configs, planned or args.backbone or [None]
        )
    ]
    files = args.checkpoint or [None] * len(names)
    if len(files) != len(names):
        raise ConfigError(
            f'--checkpoint needs one file for each of {len(names)} '
            f'candidates, but got {len(files)}'
        )
    if args.baseline_checkpoint and not args.baseline:
        raise ConfigError('--baseline-checkpoint needs --baseline')
    if args.baseline:
        names.append(dict(config=args.baseline, backbone=None))
        files = [*files, args.baseline_checkpoint]
    configs, refused = [], []
    for name in names:
        method = name['backbone'] if name['backbone'] in planned else None
        backbone = None if method else name['backbone']
        config = load_config(name['config'], args.cfg_options, backbone)
        if method:
            try:
                config = with_method(config, method, args.target, args.shape)
            except ConfigError as error:
                if args.methods or len(refused) == len(planned) - 1:
                    raise
                print(f'{method} is left out: {error}', flush=True)
                refused.append(name)
                continue
        configs.append(config)
    kept = [i for i, name in enumerate(names) if name not in refused]
    names, files = [names[i] for i in kept], [files[i] for i in kept]
    models = [build_candidate(c, f) for c, f in zip(configs, files)]
    return names, configs, models


def measure(args) -> dict:
    """All figures, as they are written to JSON."""
    device = choose_device(args.device)
    dtype = DTYPES.get(args.amp)
    names, configs, models = build(args)
    shape = common_shape(configs, models, args.shape)
    images = make_images(
        args.images, configs[0], models[0], shape, args.batch_size
    )
    layout = {'memory_format': torch.channels_last}
    layout = layout if args.channels_last else {}
    images = images.to(device, **layout)
    models = [model.to(device, **layout) for model in models]
    if args.optimize:
        models = [optimize_for_inference(m.eval()) for m in models]
    rows = benchmark.benchmark(
        models,
        images,
        shape,
        args.repeats,
        args.warmup,
        dtype,
        'inductor' if args.compile else None,
        clock=CLOCKS[args.clock],
        part=args.part,
    )
    rows = [{**name, **row} for name, row in zip(names, rows)]
    baseline = rows.pop() if args.baseline else None
    gains = []
    if baseline:
        gains = [benchmark.speedup(row, baseline) for row in rows]
        for row in rows:
            row['macs_ratios'] = benchmark.macs_ratios(row, baseline)
    return {
        'device': str(device),
        'dtype': str(dtype or torch.float32).removeprefix('torch.'),
        'batch_size': args.batch_size,
        'shape': list(shape),
        'part': args.part,
        'candidates': rows,
        'baseline': baseline,
        'contradictions': report.contradictions(
            [*([baseline] if baseline else []), *rows]
        ),
        'speedup': gains[0] if len(gains) == 1 else gains or None,
        'input_shape': list(images.shape[-2:]),
        'images': args.images,
        'repeats': args.repeats,
        'warmup': args.warmup,
        'clock': args.clock,
        'compile': args.compile,
        'optimize': args.optimize,
        'channels_last': args.channels_last,
        'environment': report.environment(device),
    }


def main() -> None:
    args = parse_args()
    figures = measure(args)
    if args.json:
        cli.write_json(args.json, figures)
    print(report.describe_benchmark(figures))


if __name__ == '__main__':
    cli.run(main)
