"""How commands are cut short: settings are appended, the rest is as written.

A setting is given where a config has it, so that a few serve all configs.
"""

import argparse
from fnmatch import fnmatch
from pathlib import Path

from mmvitcompress.engine.backbone_flag import run_name
from mmvitcompress.engine.config import add_overrides, read_config

SIDE = 64  # of images, in pixels
AT_MOST = {
    'train_cfg.max_*': 1,
    '*_dataloader.num_workers': 0,
    'train_dataloader.batch_size': 2,
    '*_dataloader.dataset.transform.input_size': SIDE,
    '*_dataloader.dataset.pipeline.*.scale': (SIDE, SIDE),
    '*_dataloader.dataset.pipeline.*.crop_size': (SIDE, SIDE),
    'model.data_preprocessor.size': (SIDE, SIDE),
    'model.*_head.channels': 32,
    'model.*_head.*.fc_out_channels': 32,
    'model.*.max_per_img': 20,  # proposals
}
# prune in the first iteration, let what is masked vanish in two more
PRUNING = {
    'increment': 1,
    'interval': 1,
    'warmup': 0,
    'warmup_epochs': 0,
    'settle_epochs': 0,
    'settle': 2,
    'shrink': 0.99,
}
EXPORT = '--part encoder --dynamic none --batch-size 1 --repeats 1 '
EXPORT += '--calibration-images 2'
OPTIONS = {
    'benchmark': '--shape 32 --batch-size 1 --repeats 1 --warmup 0',
    'convert_medical': '--partial',
    'demo': '--repeats 1 --batch-size 1',
    'export': EXPORT,
    'export_onnx': EXPORT,
    'export_pruned': '--images 2',
    'get_flops': '--shape 64',
    'knn': '--k 2',
}
CONFIGURED = ('train', 'test', 'export_pruned', 'predict', 'knn')


def leaves(node, prefix=''):
    """Dotted keys of a config's values, and the values."""
    for key, value in node.items() if hasattr(node, 'items') else node:
        nested = value
        if isinstance(value, list) and all(isinstance(x, dict) for x in value):
            nested = list(enumerate(value))
        if isinstance(nested, dict) or nested is not value:
            yield from leaves(nested, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


def settings(cfg):
    """Dotted keys and values that cut a run of a config short."""
    found = {'randomness.seed': 0}
    for key, value in leaves(cfg):
        for pattern, limit in AT_MOST.items():
            if fnmatch(key, pattern) and value is not None:
                if isinstance(value, tuple) and not isinstance(limit, tuple):
                    limit = (value[0], limit, limit)  # channels first
                found[key] = min(value, limit)
    if 'checkpoint' in cfg.get('default_hooks', {}):
        hook = 'default_hooks.checkpoint'
        found |= {f'{hook}.save_optimizer': False, f'{hook}.save_best': None}
    for i, hook in enumerate(cfg.get('custom_hooks') or []):
        if hook['type'].endswith(('CDCPHook', 'PruningHook')):
            cut = dict(PRUNING)
            if not hook['type'].endswith('CDCPHook'):
                del cut['shrink']  # gone at once
            found |= {f'custom_hooks.{i}.{k}': v for k, v in cut.items()}
            if 'train_cfg.max_iters' in found:
                found['train_cfg.max_iters'] = PRUNING['settle'] + 1
    return found


def given(words):
    """The config that a command line asks for, and its work dir."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument('config')
    parser.add_argument('--work-dir')
    add_overrides(parser, 'as the tools')
    args, _ = parser.parse_known_args(words)
    cfg = read_config(args.config, args.cfg_options, args.backbone)
    folder = f'work_dirs/{run_name(args.config, args.backbone)}'
    return cfg, Path(args.work_dir or folder)


def cut(tool, words):
    """A tool's words, and those that cut it short."""
    asked = '--check-images' in words
    words = [*words, *OPTIONS.get(tool, '').split()]
    words += ['--check-images', '2'] * asked
    if tool not in CONFIGURED:
        return words
    pairs = [
        f'{key}={value}'.replace(' ', '')
        for key, value in settings(given(words)[0]).items()
    ]
    # a second --cfg-options would replace the first
    flag = '--cfg-options'
    if flag not in words:
        return [*words, flag, *pairs]
    end = words.index(flag) + 1
    while end < len(words) and not words[end].startswith('--'):
        end += 1
    return [*words[:end], *pairs, *words[end:]]


def last_checkpoint(cfg):
    """What the whole run would have called its last checkpoint."""
    loop = cfg.train_cfg
    if 'max_epochs' in loop:
        return f'epoch_{loop.max_epochs}.pth'
    return f'iter_{loop.max_iters}.pth'
