"""Measure frozen features by nearest neighbours: top-1 without training.

Images of the config's validation set are classified by the votes of the most
similar training images, which are seen as in validation, not augmented. Needs
a classification config; its classifier isn't used.
"""

from copy import deepcopy

from mmengine.runner import Runner
from mmengine.utils import track_iter_progress

from mmvitcompress.engine import launch
from mmvitcompress.engine.build import build
from mmvitcompress.engine.config import add_overrides, read_config
from mmvitcompress.errors import ConfigError
from mmvitcompress.evaluation.neighbours import (
    classify_by_neighbours,
    collect_features,
)
from mmvitcompress.utils import cli


def parse_args():
    parser = cli.parser(__doc__.strip())
    add = parser.add_argument
    add('config', help='config of a classifier and its data')
    add(
        '--checkpoint',
        metavar='FILE',
        help='weights; by default what model.backbone.checkpoint names',
    )
    add(
        '--blocks',
        type=int,
        nargs='+',
        metavar='N',
        help='blocks whose outputs are features, counted from 1; by default '
        'the last',
    )
    add('--k', type=int, default=10, metavar='N', help='neighbours that vote')
    add(
        '--temperature',
        type=float,
        default=0.07,
        help='of the votes; the smaller, the more the nearest counts',
    )
    add(
        '--pool',
        choices=['token', 'avg'],
        default='token',
        help='[CLS] or the mean of the patches',
    )
    add_overrides(parser, 'override parts of the config')
    cli.add_json(parser, 'also write the figures')
    return parser.parse_args()


def loaders(cfg) -> list:
    """Training and validation images, both as in validation."""
    known = deepcopy(cfg.val_dataloader)
    val, train = cfg.val_dataloader.dataset, cfg.train_dataloader.dataset
    known.dataset = dict(train, transform=val.get('transform', {}))
    every = []
    with launch.naming_data_errors():
        for loader in (known, cfg.val_dataloader):
            loader.sampler = dict(type='DefaultSampler', shuffle=False)
            loader.persistent_workers = False  # it is read once
            every.append(Runner.build_dataloader(loader))
    return every


def main():
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options, args.backbone)
    if args.temperature <= 0:
        raise ConfigError(
            f'--temperature must be positive, but got {args.temperature}'
        )
    if not str(cfg.model.get('type')).endswith('ImageClassifier'):
        raise ConfigError(
            'knn.py needs the config of an ImageClassifier, but got '
            f'{cfg.model.get("type")}'
        )
    cfg.model.backbone.final_norm = True
    data = loaders(cfg)
    accuracies = {}
    for block in args.blocks or [0]:
        cfg.model.backbone.out_indices = [block - 1]
        model = build(cfg, args.checkpoint, 'look')
        (known, labels), (queries, truth) = (
            collect_features(
                model, track_iter_progress((loader, len(loader))), args.pool
            )
            for loader in data
        )
        predicted = classify_by_neighbours(
            known, labels, queries, args.k, args.temperature
        )
        depth = len(model.backbone.arch.qk_dims)
        accuracy = 100 * (predicted == truth).double().mean().item()
        accuracies[block or depth] = accuracy
        print(
            f'\nblock {block or depth} of {depth}: top-1 {accuracy:.2f} % of '
            f'{len(truth)} images by {args.k} of {len(labels)} neighbours'
        )
    if args.json:
        report = dict(top1=accuracies, k=args.k, pool=args.pool)
        cli.write_json(args.json, report)


if __name__ == '__main__':
    cli.run(main)
