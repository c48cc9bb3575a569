"""Train a segmenter, detector or classifier from its config.

A run that was interrupted goes on with --resume exactly as if it had not
been. Several processes are started by dist_train.sh or slurm_train.sh; those
of dist_train.sh need no GPU.
"""

from mmvitcompress.datasets.label_check import check_run
from mmvitcompress.engine import launch, weights
from mmvitcompress.engine.learning_rates import follow_length
from mmvitcompress.utils import cli


def parse_args():
    parser = cli.parser(__doc__)
    launch.add_run_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint, without a name from the newest in the '
        'work dir; from the beginning if there is none yet',
    )
    parser.add_argument(
        '--amp', action='store_true', help='train in mixed precision'
    )
    parser.add_argument(
        '--no-validate',
        action='store_true',
        help='do not evaluate during training',
    )
    parser.add_argument(
        '--no-check',
        action='store_true',
        help='do not read every label map before training',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the number of images per step, '
        'relative to auto_scale_lr.base_batch_size',
    )
    parser.add_argument(
        '--no-persistent-workers',
        action='store_true',
        help='start the workers that load data anew for every epoch',
    )
    return parser.parse_args()


def main():
    args = parse_args()
    cfg = launch.start(args)
    launch.require_parts(cfg, 'train')
    if args.no_validate:
        for name in ('val_cfg', 'val_dataloader', 'val_evaluator'):
            cfg[name] = None
    if args.no_persistent_workers:
        cfg.train_dataloader.persistent_workers = False
    if args.amp:
        launch.enable_amp(cfg)
    if cfg.optim_wrapper.get('type') == 'AmpOptimWrapper':
        launch.require_accelerator('--amp' if args.amp else 'AmpOptimWrapper')
    if args.auto_scale_lr:
        launch.enable_auto_scale_lr(cfg)
    note = follow_length(cfg, args.config, args.cfg_options)
    weights.choose_weights(cfg, args.resume)
    launch.add_training_hooks(cfg)
    with launch.naming_data_errors():
        runner = launch.build_runner(cfg)
        if note:
            runner.logger.warning(note)
        if not args.no_check:
            check_run([runner.train_loop, runner.val_loop])
        runner.train()


if __name__ == '__main__':
    cli.run(main)
