"""Evaluate a trained segmenter, detector or classifier.

The checkpoint must be one of the config's model: anything that is missing in
it or of another shape is an error.
"""

from mmengine.dist import is_main_process
from mmengine.fileio import dump

from mmvitcompress.engine import launch, testing, weights
from mmvitcompress.utils import cli


def parse_args():
    parser = cli.parser(__doc__)
    launch.add_run_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--out',
        metavar='PATH',
        help='where to save predictions: a folder of label maps for '
        'segmentation, else a .pkl file; or metrics, see --out-item',
    )
    parser.add_argument(
        '--out-item',
        choices=['pred', 'metrics'],
        default='pred',
        help='what to save to --out; metrics as .json, .yaml or .pkl',
    )
    cli.add_json(
        parser, 'write the metrics to this file, those of each class, too'
    )
    parser.add_argument(
        '--show', action='store_true', help='show predictions in a window'
    )
    parser.add_argument(
        '--show-dir',
        metavar='DIR',
        help='save painted predictions in this folder',
    )
    parser.add_argument(
        '--interval',
        type=int,
        default=1,
        help='show or save every n-th prediction',
    )
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        help='how long to show a prediction, in s',
    )
    parser.add_argument(
        '--tta', action='store_true', help="average over the config's views"
    )
    parser.add_argument(
        '--amp', action='store_true', help='test in mixed precision'
    )
    return parser.parse_args()


def main():
    args = parse_args()
    cfg = launch.start(args)
    launch.require_parts(cfg, 'test')
    stored = weights.choose_tested_weights(cfg, args.checkpoint)
    if args.amp:
        launch.require_accelerator('--amp')
        cfg.test_cfg.fp16 = True
    if args.show or args.show_dir:
        testing.show_predictions(
            cfg, args.show, args.show_dir, args.wait_time, args.interval
        )
    if args.tta:
        testing.use_test_time_augmentation(cfg)
    if args.out and args.out_item == 'pred':
        testing.save_predictions(cfg, args.out)
    with launch.naming_data_errors():
        runner = weights.build_tested(cfg, stored)
        classes = testing.keep_class_metrics(runner)
        metrics = runner.test()
    if not is_main_process():
        return
    metrics = {name: float(value) for name, value in metrics.items()}
    if args.out and args.out_item == 'metrics':
        dump(metrics, args.out)
    if args.json:
        run = dict(config=args.config, checkpoint=args.checkpoint)
        cli.write_json(args.json, {**run, **metrics, **classes})


if __name__ == '__main__':
    cli.run(main)
