"""MMEngine's training checkpoints load; files that hold code do not."""

import io
import os
import pickle
import shutil
from copy import deepcopy

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner, checkpoint, load_checkpoint
from torch.utils.data import Dataset

from mmvitcompress.compat.torch_load import harmless_globals


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, x, y, mode='tensor'):
        output = self.layer(torch.stack(x))[:, 0]
        if mode == 'loss':
            return dict(loss=(output - torch.stack(y)).pow(2).mean())
        return [output]


class Points(Dataset):
    def __init__(self):
        self.metainfo = dict(
            classes=('a', 'b'), palette=[[0, 0, 0], [9, 9, 9]]
        )

    def __len__(self):
        return 8

    def __getitem__(self, index):
        x = torch.tensor([index / 8, 1.0])
        return dict(x=x, y=x.sum())


class Score(BaseMetric):
    """A metric that, as mmseg's do, yields NumPy numbers."""

    default_prefix = 'test'

    def process(self, data_batch, data_samples):
        self.results.append(1.0)

    def compute_metrics(self, results):
        return dict(
            mIoU=np.round(np.float64(12.3456), 2),
            small=np.float32(0.5),
            count=np.int64(len(results)),
        )


def make_runner(work_dir, length, by_epoch, **kwargs):
    """A runner of ``length`` epochs of 4 iterations, with all that mmengine
    writes into its checkpoints."""
    loop = dict(by_epoch=True, max_epochs=length, val_interval=1)
    if not by_epoch:
        loop = dict(
            type='IterBasedTrainLoop', max_iters=4 * length, val_interval=4
        )
    sampler = 'DefaultSampler' if by_epoch else 'InfiniteSampler'
    batches = dict(batch_size=2, dataset=Points())
    return Runner(
        model=Line(),
        work_dir=str(work_dir),
        train_dataloader=dict(sampler=dict(type=sampler), **batches),
        val_dataloader=dict(
            sampler=dict(type='DefaultSampler', shuffle=False), **batches
        ),
        val_evaluator=dict(type=Score),
        val_cfg=dict(),
        train_cfg=loop,
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=1e-2), clip_grad=dict(max_norm=1)
        ),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=3),
            dict(type='PolyLR', begin=3, end=40, by_epoch=False),
            dict(type='CosineAnnealingMomentum', T_max=9, by_epoch=by_epoch),
        ],
        default_hooks=dict(
            checkpoint=dict(
                type='CheckpointHook',
                interval=1 if by_epoch else 4,
                by_epoch=by_epoch,
                save_best='test/mIoU',
            ),
            logger=dict(type='LoggerHook', interval=1),
        ),
        custom_hooks=[dict(type='EMAHook')],
        log_level='ERROR',
        experiment_name=f'{work_dir.name}-{length}-{by_epoch}-{len(kwargs)}',
        **kwargs,
    )


@pytest.fixture(scope='module', params=[True, False], ids=['epoch', 'iter'])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp('work')
    runner = make_runner(folder, 2, request.param)
    runner.train()
    return folder, request.param, runner


def test_every_checkpoint_of_a_run_loads_safely(trained):
    folder, _, _ = trained
    files = sorted(folder.glob('*.pth'))
    assert len(files) == 3
    for file in files:
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(file)
        assert unsafe == []
        content = torch.load(file, weights_only=True)
        assert {'state_dict', 'ema_state_dict', 'message_hub'} <= set(content)
        scores = content['message_hub']['log_scalars']
        assert isinstance(scores['train/loss'], HistoryBuffer)
        assert scores['train/loss'].statistics('mean', 2) > 0
    best = next(folder.glob('best*.pth'))
    info = torch.load(best)['message_hub']['runtime_info']
    assert info['best_score'] == np.float64(12.35)


class Resumed(Hook):
    """Notes what training starts from."""

    def before_train(self, runner):
        self.iteration = runner.iter
        self.lr = runner.optim_wrapper.get_lr()
        self.state = deepcopy(runner.optim_wrapper.optimizer.state_dict())
        self.weights = deepcopy(runner.model.state_dict())
        self.losses = len(runner.message_hub.get_scalar('train/loss').data[0])


def test_training_resumes_where_it_stopped(trained, tmp_path):
    folder, by_epoch, first = trained
    folder = shutil.copytree(folder, tmp_path / folder.name)
    second = make_runner(folder, 3, by_epoch, resume=True)
    start = Resumed()
    second.register_hook(start)
    second.train()
    assert (start.iteration, start.losses) == (8, 8)
    assert start.lr == first.optim_wrapper.get_lr()
    saved = first.optim_wrapper.optimizer.state_dict()['state']
    for index, entries in saved.items():
        for key, value in entries.items():
            assert torch.equal(start.state['state'][index][key], value)
    for key, value in first.model.state_dict().items():
        assert torch.equal(start.weights[key], value)
    assert second.iter == 12
    assert len(second.message_hub.get_scalar('train/loss').data[0]) == 12


def save(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize('code', '?bBhHiIlLqQefd')
def test_numpy_arrays_and_numbers_load(code):
    array = np.array([[0, 1], [1, 0]], dtype=code)
    content = dict(array=array, number=array[0, 1], kind=array.dtype)
    loaded = torch.load(save(content), weights_only=True)
    assert np.array_equal(loaded['array'], array)
    assert loaded['array'].dtype == loaded['kind'] == array.dtype
    assert loaded['number'] == array[0, 1]


def test_files_written_under_either_numpy_load():
    """NumPy 1 called ``numpy._core`` ``numpy.core``."""
    buffer = io.BytesIO()
    content = dict(array=np.arange(3.0), number=np.float64(1.5))
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    raw = buffer.getvalue()
    for name in (b'numpy.core.multiarray', b'numpy._core.multiarray'):
        other = raw.replace(b'numpy._core.multiarray', name)
        other = other.replace(b'numpy.core.multiarray', name)
        assert name + b'\nscalar' in other
        assert name + b'\n_reconstruct' in other
        loaded = torch.load(io.BytesIO(other), weights_only=True)
        assert loaded['array'].tolist() == [0, 1, 2]
        assert loaded['number'] == 1.5


class Payload:
    """Runs a function when it is unpickled."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def test_code_is_refused_everywhere(tmp_path, trained):
    folder, by_epoch, _ = trained
    marker, file = tmp_path / 'ran', tmp_path / 'evil.pth'
    content = torch.load(next(folder.glob('best*.pth')))
    content['meta']['payload'] = Payload(os.system, f'touch {marker}')
    torch.save(content, file)
    runner = make_runner(
        tmp_path, 3, by_epoch, resume=True, load_from=str(file)
    )
    loads = [lambda: torch.load(file)]
    # the maintained fork of MMEngine tries again without safety
    if not hasattr(checkpoint, '_safe_torch_load'):
        loads += [lambda: load_checkpoint(Line(), str(file)), runner.train]
    for load in loads:
        with pytest.raises(pickle.UnpicklingError, match='system'):
            load()
    assert not marker.exists()
    # the payload would have run
    torch.load(file, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize(
    'payload',
    [
        Payload(eval, '1 + 1'),
        Payload(getattr, np.ndarray, 'tofile'),
        Payload(getattr, HistoryBuffer, '__init__'),
        Payload(getattr, HistoryBuffer, 'register_statistics'),
        Payload(np.load, 'file'),
        Payload(io.open, 'file', 'w'),
    ],
    ids=lambda payload: payload.call[1][-1],
)
def test_what_else_could_do_harm_is_refused(payload):
    with pytest.raises(pickle.UnpicklingError):
        torch.load(save([payload]), weights_only=True)


def test_the_forks_temporary_list_takes_nothing_away():
    """They allow bare classes during a load, then remove them."""
    bare = [value for value, _ in harmless_globals()]
    content = save([HistoryBuffer([1.0], [1]), np.float64(1)])
    with torch.serialization.safe_globals(bare):
        pass
    history, number = torch.load(content, weights_only=True)
    assert history.current() == number == 1
