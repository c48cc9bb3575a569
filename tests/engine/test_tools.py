"""tools/train.py and tools/test.py: what they accept and refuse."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from PIL import Image
from torch import nn
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader, Dataset

from mmvitcompress.engine import launch, testing, weights
from mmvitcompress.engine.hooks import ClassificationCheckHook
from mmvitcompress.errors import ConfigError, DataError

SHORT = """
train_cfg.update(max_iters=2, val_interval=2)
"""


def refused(outcome, *parts):
    """The tool failed with one line that holds ``parts`` in this order."""
    status, stderr = outcome
    line = stderr.strip().splitlines()[-1]
    assert status == 1, stderr
    assert 'Traceback' not in stderr
    assert ' error: ' in line
    for part in parts:
        assert part in line
        line = line.split(part, 1)[1]
    return True


def test_unknown_arguments_are_refused(tool, config):
    for name in ('train', 'test'):
        status, stderr = tool(name, config(), 'x.pth', '--wrok-dir', 'x')
        assert status == 2
        assert 'unrecognized arguments' in stderr


@pytest.mark.parametrize(
    ('args', 'parts'),
    [
        (['--amp'], ['--amp needs CUDA']),
        (
            ['--cfg-options', 'optim_wrapper.type=AmpOptimWrapper'],
            ['AmpOptimWrapper needs CUDA'],
        ),
        (['--auto-scale-lr'], ['auto_scale_lr.base_batch_size']),
        (['--resume', 'no.pth'], ["'no.pth' not found"]),
        (['--cfg-options', 'load_from=no.pth'], ["'no.pth' not found"]),
        (
            ['--cfg-options', 'train_cgf.max_iters=1'],
            ['train_cgf.max_iters', "no 'train_cgf'", 'train_cfg'],
        ),
        (
            ['--cfg-options', 'param_scheduler.5.power=1'],
            ['param_scheduler.5.power', 'cannot be merged'],
        ),
        (
            ['--cfg-options', 'model.backbone.depht=50'],
            ["unexpected keyword argument 'depht'"],
        ),
        (
            ['--cfg-options', 'model.backbone.type=RestNet'],
            ['RestNet is not in the'],
        ),
        (
            ['--cfg-options', 'default_scope=mmdat'],
            ['mmdat', 'not installed'],
        ),
        (
            ['--cfg-options', 'train_dataloader.dataset.data_root=/none'],
            ['/none', 'check data_root'],
        ),
        (['--cfg-options', 'train_cfg=None'], ['has no train_cfg']),
        # a value that was copied into others when the config was read
        (
            ['--cfg-options', 'size=(64, 64)'],
            ['nothing reads size', 'model.data_preprocessor.size'],
        ),
        *(
            (['--cfg-options', pair], [part])
            for pair, part in (
                ('load_from=', "a file, but got ''"),
                ('load_from=1', 'load_from must be a string, but got 1'),
                ('load_from=http://127.0.0.1:9/x', 'could not be downloaded'),
                ('model=1', 'model must be a dict, but got 1'),
                ('model.backbone=None', 'model.backbone must be a dict'),
                ('model.decode_head=3', 'model.decode_head must be a dict'),
                ('train_dataloader.batch_size=0', 'batch_size must be a whol'),
                ('train_dataloader.num_workers=-1', 'num_workers option'),
                ('train_dataloader=1', 'train_dataloader must be a dict'),
                ('optim_wrapper.optimizer.lr=abc', "at least 0, but got 'a"),
                ('optim_wrapper.optimizer.lr=-1', 'but got -1'),
                ('optim_wrapper=3', 'optim_wrapper must be a dict'),
                ('optim_wrapper.optimizer=None', 'cannot be built'),
                ('randomness.seed=-1', 'from 0 to 2**32 - 1'),
                ('randomness.seed=abc', 'randomness.seed'),
                ('log_level=NOPE', 'log_level must be one of'),
                ('train_cfg.max_iters=a', 'train_cfg.max_iters must'),
                ('train_cfg.max_iters=0', 'train_cfg.max_iters must'),
                ('train_cfg.val_interval=0', 'train_cfg.val_interval must'),
                ('param_scheduler=1', 'param_scheduler must be a list'),
                ('custom_hooks=[(a,b)]', 'custom_hooks must be dicts'),
                ('val_evaluator=None', 'either all None or not None'),
                ('model.type=1', 'type must be a str'),
                ('model.decode_head.num_classes=abc', 'built, at FCNHead'),
                (
                    'model.decode_head.num_classes=2',
                    'model.decode_head.num_classes must be at least 3, the '
                    'number of classes in the data, but got 2',
                ),
            )
        ),
        (['--resume', ''], ["a file, but got ''"]),
        (['--work-dir', 'w' * 5000], ['too long', 'www…www']),
        (['--work-dir', __file__], ['exists', 'test_tools.py']),
        (['--backbone', 'b' * 5000], ['bbb…bbb', 'neither a file']),
        (['--launcher', 'pytorch'], ['torchrun did not start']),
        (['--launcher', 'slurm'], ["but got 'slurm'"]),
    ],
    ids=lambda value: ' '.join(value) if '--' in value[0] else '',
)
def test_train_refuses(tool, config, tmp_path, monkeypatch, args, parts):
    monkeypatch.delenv('RANK', raising=False)
    monkeypatch.setattr(launch, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(
        'mmvitcompress.compat.cpu_ddp.get_device', lambda: 'cpu'
    )
    outcome = tool('train', config(), '--work-dir', tmp_path / 'w', *args)
    assert refused(outcome, *parts)


@pytest.mark.parametrize(
    ('box', 'mask', 'few'),
    [(4, 4, ''), (3, 4, 'bbox_head'), (4, 3, 'mask_head'), (9, 9, '')],
)
def test_a_detector_has_a_class_for_every_label(box, mask, few):
    # one of regions knows no classes of objects
    counts = dict(rpn_head=1, bbox_head=box, mask_head=mask, backbone=1)
    model = nn.ModuleDict({name: nn.Module() for name in counts})
    for name, count in counts.items():
        model[name].num_classes = count
    data = SimpleNamespace(metainfo=dict(classes=tuple('abcd')))
    run = SimpleNamespace(
        model=model,
        train_loop=SimpleNamespace(dataloader=SimpleNamespace(dataset=data)),
        val_loop=None,
    )
    wanted = f'model.{few}.num_classes must be at least 4'
    raising = pytest.raises(ConfigError, match=wanted)
    with raising if few else nullcontext():
        ClassificationCheckHook().before_train(run)


@pytest.mark.parametrize(
    ('text', 'parts'),
    [
        (None, ['not found']),
        ('model = 1', ['model must be a dict, but got 1']),
        ('model = dict(', ['cannot be read', 'SyntaxError']),
        ("_base_ = 'none.py'", ['cannot be read', 'none.py']),
        ('a = 1 / 0', ['cannot be read', 'ZeroDivisionError']),
        ('a = 1', ['no model, no train_dataloader']),
        (
            "custom_imports = dict(imports=['nowhere'])",
            ['custom_imports', 'nowhere'],
        ),
    ],
)
def test_broken_configs_are_refused(tool, tmp_path, text, parts):
    path = tmp_path / 'broken.py'
    if text is not None:
        path.write_text(text)
    assert refused(tool('train', path), *parts)


@pytest.mark.parametrize(
    ('checkpoint', 'part'),
    [
        ('', "a file, but got ''"),
        ('x' * 5000, 'xxx…xxx'),
        ('http://127.0.0.1:9/x.pth', 'could not be downloaded'),
        (__file__, 'is a text file'),
    ],
    ids=['empty', 'long', 'refusing', 'text'],
)
@pytest.mark.parametrize('name', ['test', 'export_pruned', 'benchmark'])
def test_what_is_no_checkpoint_is_refused(
    tool, config, tmp_path, name, checkpoint, part
):
    args = {
        'test': [checkpoint],
        'export_pruned': [checkpoint, tmp_path / 'out.pth'],
        'benchmark': ['--checkpoint', checkpoint],
    }
    assert refused(tool(name, config(), *args[name]), part)
    assert not list(tmp_path.glob('*.pth'))


@pytest.mark.parametrize('name', ['test', 'train', 'export_pruned'])
def test_configs_without_model_are_refused(tool, config, tmp_path, name):
    weights, out = tmp_path / 'w.pth', tmp_path / 'o.pth'
    torch.save({'state_dict': {'fc.weight': torch.ones(2, 2)}}, weights)
    args = {'test': [weights], 'train': [], 'export_pruned': [weights, out]}
    outcome = tool(name, config('del model\n'), *args[name])
    assert refused(outcome, 'has no model')


def test_options_must_be_pairs(tool, config):
    status, stderr = tool('train', config(), '--cfg-options', 'resume')
    assert status == 2
    assert "must be KEY=VALUE, but got 'resume'" in stderr


def test_an_empty_training_set_is_refused(tool, config, tmp_path):
    outcome = tool(
        'train',
        config("train_dataloader['dataset']['img_suffix'] = '.tif'\n"),
        *('--work-dir', tmp_path / 'w'),
        *('--cfg-options', 'train_dataloader.num_workers=1'),
    )
    assert refused(outcome, 'holds no images')


def test_truncated_checkpoints_are_refused(tool, config, tmp_path):
    path = tmp_path / 'iter_4.pth'
    torch.save({'state_dict': {'weight': torch.zeros(999)}}, path)
    path.write_bytes(path.read_bytes()[:2000])
    assert refused(tool('train', config(), '--resume', path), 'truncated')
    assert refused(tool('test', config(), path), 'truncated')


@pytest.mark.slow
def test_train_then_test(tool, config, helpers, tmp_path, data):
    work_dir = tmp_path / 'w'
    path = config(SHORT)
    assert tool('train', path, '--work-dir', work_dir)[0] == 0
    (expected,) = helpers.logged(work_dir, 'mIoU').values()
    checkpoint = work_dir / 'iter_2.pth'

    # its own hooks are in the config that MMEngine leaves in the work dir
    hooks = Config.fromfile(work_dir / 'tiny.py').custom_hooks
    assert [hook['type'] for hook in hooks] == [
        'mmvitcompress.ArchMetaHook',
        'mmvitcompress.AuxiliaryLossHook',
        'mmvitcompress.ClassificationCheckHook',
        'mmvitcompress.FiniteHook',
        'mmvitcompress.RNGStateHook',
        'mmvitcompress.StrictLoadHook',
        'mmvitcompress.ResumeCheckHook',
    ]

    out, figures, shown = (tmp_path / name for name in ('o', 'f.json', 's'))
    outcome = tool(
        *('test', path, checkpoint, '--work-dir', tmp_path / 't'),
        *('--out', out, '--json', figures, '--show-dir', shown),
    )
    assert outcome[0] == 0, outcome[1]
    content = json.loads(figures.read_text())
    assert content['mIoU'] == expected
    assert content['config'] == path
    assert content['checkpoint'] == str(checkpoint)
    truth = data / 'annotations' / 'validation'
    assert {p.name for p in out.iterdir()} == {p.name for p in truth.iterdir()}
    labels = np.asarray(Image.open(out / '0.png'))
    assert labels.shape == np.asarray(Image.open(truth / '0.png')).shape
    seen, true = (
        np.stack([np.asarray(Image.open(folder / f'{i}.png')) for i in (0, 1)])
        for folder in (out, truth)
    )
    for label, name in enumerate('abc'):
        ours, theirs = seen == label, true == label
        iou = (ours & theirs).sum() / (ours | theirs).sum()
        assert content[f'IoU.{name}'] == pytest.approx(100 * iou)
        recall = (ours & theirs).sum() / theirs.sum()
        assert content[f'Acc.{name}'] == pytest.approx(100 * recall)
    assert len(list(shown.rglob('*.png'))) == 2

    metrics = tmp_path / 'm.json'
    outcome = tool(
        *('test', path, checkpoint, '--work-dir', tmp_path / 't'),
        *('--out', metrics, '--out-item', 'metrics'),
    )
    assert outcome[0] == 0, outcome[1]
    assert json.loads(metrics.read_text())['mIoU'] == expected

    # a checkpoint of another model must not be tested nor resumed
    options = ['--cfg-options', 'model.decode_head.num_convs=2']
    other = 'is of another model: it lacks decode_head.convs.1'
    assert refused(tool('test', path, checkpoint, *options), other)
    assert refused(
        tool(
            *('train', path, '--resume', checkpoint, *options),
            *('model.decode_head.dropout_ratio=0', '--work-dir', work_dir),
        ),
        other,
    )
    # but training may start from it, and only what fits is taken
    weights = f'load_from={checkpoint}'
    assert tool('train', path, *options, weights, '--work-dir', out)[0] == 0

    # with the same name, MMEngine would start from random weights
    torch.save({'fc.weight': torch.zeros(2, 2)}, tmp_path / 'x.pth')
    outcome = tool('test', path, tmp_path / 'x.pth')
    assert refused(outcome, 'x.pth', 'holds a backbone only')


def test_resume_without_checkpoint_starts_anew(
    tool, config, helpers, tmp_path
):
    work_dir = tmp_path / 'w'
    outcome = tool(
        *('train', config(SHORT), '--work-dir', work_dir, '--resume'),
        '--no-validate',
    )
    assert outcome[0] == 0, outcome[1]
    assert set(helpers.logged(work_dir)) == {1, 2}
    assert not helpers.logged(work_dir, 'mIoU')


def test_resume_keeps_a_seed_that_was_drawn(config, tmp_path):
    path = config()
    checkpoint = tmp_path / 'iter_4.pth'
    torch.save(
        {
            'state_dict': {'fc.weight': torch.zeros(2, 2)},
            'meta': {'seed': 99},
            'optimizer': {},
            'message_hub': {},
        },
        checkpoint,
    )
    cfg = Config.fromfile(path)
    cfg.work_dir = str(tmp_path)
    cfg.randomness = dict(seed=None, deterministic=True)
    weights.choose_weights(cfg, 'auto')
    assert cfg.resume
    assert cfg.load_from == str(checkpoint)
    assert cfg.randomness == dict(seed=99, deterministic=True)
    # weights to start from say nothing about seeds
    cfg = Config.fromfile(path)
    cfg.load_from = str(checkpoint)
    weights.choose_weights(cfg, None)
    assert not cfg.get('resume')
    assert cfg.randomness.seed == 7


def test_amp_changes_only_the_usual_wrapper():
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper', clip=1)))
    launch.enable_amp(cfg)
    assert cfg.optim_wrapper == dict(
        type='AmpOptimWrapper', clip=1, loss_scale='dynamic'
    )
    cfg.optim_wrapper.loss_scale = 512.0
    launch.enable_amp(cfg)
    assert cfg.optim_wrapper.loss_scale == 512.0
    cfg.optim_wrapper.type = 'ApexOptimWrapper'
    with pytest.raises(ConfigError, match="but got 'ApexOptimWrapper'"):
        launch.enable_amp(cfg)


def test_training_hooks_replace_the_usual_ones():
    cfg = Config(
        dict(
            launcher='pytorch',
            resume=True,
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', a=1)),
            custom_hooks=[
                dict(type='EMAHook'),
                dict(type='mmvitcompress.StrictLoadHook', whole=False),
            ],
        )
    )
    launch.add_training_hooks(cfg)
    assert cfg.default_hooks.checkpoint == dict(
        type='mmvitcompress.AtomicCheckpointHook', a=1
    )
    assert cfg.custom_hooks == [
        dict(type='EMAHook'),
        dict(type='mmvitcompress.ArchMetaHook'),
        dict(type='mmvitcompress.AuxiliaryLossHook'),
        dict(type='mmvitcompress.ClassificationCheckHook'),
        dict(type='mmvitcompress.FiniteHook'),
        dict(type='mmvitcompress.RNGStateHook'),
        dict(type='mmvitcompress.StrictLoadHook', whole=True),
        dict(type='mmvitcompress.ResumeCheckHook'),
        dict(type='mmvitcompress.MeanLossHook'),
    ]
    cfg = Config(dict(launcher='none', default_hooks=dict(checkpoint=None)))
    launch.add_training_hooks(cfg)
    assert cfg.default_hooks.checkpoint is None


def test_missing_files_of_workers_become_one_line():
    try:
        Path('a.png').read_bytes()
    except FileNotFoundError:  # as torch hands it over
        caught_there = ExceptionWrapper(where='in worker process 0')
    with (
        pytest.raises(DataError) as caught,
        launch.naming_data_errors(),
    ):
        caught_there.reraise()
    assert str(caught.value).startswith('[Errno 2] No such file')
    assert '\n' not in str(caught.value)


def opens_nothing(path):
    return open(path).read()


class ReadsNothing(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return opens_nothing(f'no{index}.png')


@pytest.mark.parametrize(
    'use',
    [
        lambda: DATASETS.build(dict(type=opens_nothing, path='no0.png')),
        lambda: ReadsNothing()[0],
        lambda: list(DataLoader(ReadsNothing())),
        lambda: list(DataLoader(ReadsNothing(), num_workers=1)),
    ],
    ids=['building', 'item', 'loader', 'worker'],
)
def test_absent_data_become_one_line(use):
    with pytest.raises(DataError) as caught, launch.naming_data_errors():
        use()
    message = str(caught.value)
    assert message.startswith('[Errno 2] No such file')
    assert "'no0.png'; check data_root" in message
    assert '\n' not in message


def test_other_absent_files_keep_their_traceback():
    with pytest.raises(FileNotFoundError), launch.naming_data_errors():
        opens_nothing('work_dir/log.txt')
    with (
        pytest.raises(ValueError, match='need at least one') as caught,
        launch.naming_data_errors(),
    ):
        np.concatenate([])
    assert not isinstance(caught.value, DataError)


@pytest.mark.parametrize('main', [False, True])
def test_only_the_main_process_writes_metrics(
    tool, config, tmp_path, monkeypatch, main
):
    class Tested:
        test_evaluator = SimpleNamespace(metrics=[])

        def test(self):
            return {'mIoU': 50}

    monkeypatch.setattr(weights, 'choose_tested_weights', lambda *args: None)
    monkeypatch.setattr(weights, 'build_tested', lambda *args: Tested())
    monkeypatch.setattr('mmengine.dist.is_main_process', lambda: main)
    paths = [tmp_path / 'out.json', tmp_path / 'figures.json']
    status, stderr = tool(
        *('test', config(), 'x.pth', '--work-dir', tmp_path / 'w'),
        *('--out', paths[0], '--out-item', 'metrics', '--json', paths[1]),
    )
    assert status == 0, stderr
    for path in paths:
        assert path.exists() == main
    if main:
        assert json.loads(paths[1].read_text()) == {
            'config': config(),
            'checkpoint': 'x.pth',
            'mIoU': 50.0,
        }


def test_predictions_of_other_tasks_are_pickled(tmp_path):
    path = str(tmp_path / 'p.pkl')
    cfg = Config(dict(default_scope='mmdet', test_evaluator=dict(type='A')))
    testing.save_predictions(cfg, path)
    assert cfg.test_evaluator == [
        dict(type='A'),
        dict(type='mmdet.DumpDetResults', out_file_path=path),
    ]
    cfg = Config(dict(default_scope='mmvitcompress', test_evaluator=[]))
    testing.save_predictions(cfg, path)
    assert cfg.test_evaluator[0].type == 'DumpResults'
    with pytest.raises(ConfigError, match=r'must be a \.pkl file'):
        testing.save_predictions(cfg, 'folder')
    cfg = Config(dict(default_scope='mmseg', test_evaluator=dict(type='A')))
    with pytest.raises(ConfigError, match='must be a folder'):
        testing.save_predictions(cfg, path)
    with pytest.raises(ConfigError, match='IoUMetric among'):
        testing.save_predictions(cfg, 'folder')


def test_views_and_pictures_need_the_config(config):
    cfg = Config.fromfile(config())
    with pytest.raises(ConfigError, match='needs tta_model'):
        testing.use_test_time_augmentation(cfg)
    del cfg.default_hooks['visualization']
    with pytest.raises(ConfigError, match=r'default_hooks\.visualization'):
        testing.show_predictions(cfg, True, None, 1.0, 1)
    cfg.default_hooks.visualization = dict(type='DetVisualizationHook')
    testing.show_predictions(cfg, True, 'painted', 1.5, 3)
    assert cfg.default_hooks.visualization == dict(
        type='DetVisualizationHook',
        draw=True,
        interval=3,
        show=True,
        wait_time=1.5,
        test_out_dir=str(Path('painted').resolve()),
    )


@pytest.mark.parametrize('count', [0, 2])
def test_a_head_of_too_few_classes_is_refused(tool, config, tmp_path, count):
    """Torch's IndexError would name neither."""
    outcome = tool(
        'train',
        config(f"model['decode_head']['num_classes'] = {count}\n" + SHORT),
        *('--work-dir', tmp_path / 'w'),
    )
    parts = 'model.decode_head.num_classes must be at least 3', f'got {count}'
    assert refused(outcome, *parts)
