"""Two processes without CUDA compute what one does with the whole batch."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from warm import warm_python

from mmvitcompress.compat.cpu_ddp import (
    CPUSyncBatchNorm,
    enable_cpu_ddp,
    use_cpu_sync_bn,
)
from mmvitcompress.errors import ConfigError

pytestmark = pytest.mark.slow

SHORT = """
train_cfg.update(max_iters=4, val_interval=4)
"""


@pytest.fixture
def runs(config, helpers, tmp_path):
    """The work dirs of one process with 4 images and two with 2 each."""
    path = config(SHORT)
    one, two = tmp_path / 'one', tmp_path / 'two'
    done = helpers.train(path, '--work-dir', one)
    assert done.returncode == 0, done.stderr
    done = helpers.execute(
        [
            helpers.root / 'tools' / 'dist_train.sh',
            *(path, 2, '--work-dir', two, '--cfg-options'),
            'train_dataloader.batch_size=2',
        ],
        PORT=str(helpers.free_port()),
    )
    assert done.returncode == 0, done.stderr
    return one, two


def test_two_processes_train_as_one(runs, helpers):
    one, two = runs
    expected = helpers.logged(one)
    assert len(expected) == len(set(expected.values())) == 4
    assert helpers.logged(two) == pytest.approx(expected, rel=1e-5)
    miou = helpers.logged(one, 'mIoU')
    assert len(miou) == 1
    assert helpers.logged(two, 'mIoU') == pytest.approx(miou, abs=0.5)
    theirs, mine = (
        torch.load(folder / 'iter_4.pth', weights_only=True) for folder in runs
    )
    assert len(mine['rng_states']) == 2
    mine, theirs = mine['state_dict'], theirs['state_dict']
    assert mine.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(mine[key], value, rtol=1e-4, atol=1e-5)


# forward and backward on one process's share of a batch
BATCH_NORM_JOB = """
import sys

import torch
import torch.distributed as dist

from mmvitcompress.compat.cpu_ddp import CPUSyncBatchNorm, use_cpu_sync_bn

folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group(
    'gloo', f'file://{folder}/meeting', rank=rank, world_size=2
)
results = []
for content in torch.load(f'{folder}/input.pt', weights_only=True):
    affine = 'weight' in content['state']
    norm = torch.nn.SyncBatchNorm(3, momentum=0.3, affine=affine)
    norm.load_state_dict(content['state'])
    norm = use_cpu_sync_bn(norm)
    assert isinstance(norm, CPUSyncBatchNorm)
    input = content['shares'][rank].clone().requires_grad_()
    output = norm(input)
    # another loss on each process
    (output**3).sum().mul(rank + 1).backward()
    for parameter in norm.parameters():
        dist.all_reduce(parameter.grad)
    grads = [parameter.grad for parameter in norm.parameters()]
    results.append({
        'output': output.detach(),
        'input.grad': input.grad,
        'shared': grads + list(norm.buffers()),
        'eval': norm.eval()(input).detach(),
    })
torch.save(results, f'{folder}/{rank}.pt')
dist.barrier()
dist.destroy_process_group()
"""


def test_sync_bn_equals_batch_norm_of_the_whole_batch(helpers, tmp_path):
    torch.manual_seed(1)
    # large against their spread, where one-pass variances would cancel;
    # and another number of images on each process
    whole = torch.randn(5, 3, 2, 4) + 100
    shares = [whole[:2].clone(), whole[2:].clone()]
    norms = [nn.BatchNorm2d(3, momentum=0.3, affine=a) for a in (True, False)]
    nn.init.normal_(norms[0].weight)
    nn.init.normal_(norms[0].bias)
    torch.save(
        [{'state': norm.state_dict(), 'shares': shares} for norm in norms],
        tmp_path / 'input.pt',
    )
    job = tmp_path / 'job.py'
    job.write_text(BATCH_NORM_JOB)
    with ThreadPoolExecutor() as pool:
        command = [warm_python(), job, tmp_path]
        jobs = [pool.submit(helpers.execute, [*command, r]) for r in range(2)]
        for done in [job.result() for job in jobs]:
            assert done.returncode == 0, done.stderr
    results = [
        torch.load(tmp_path / f'{rank}.pt', weights_only=True)
        for rank in range(2)
    ]
    for norm, *parts in zip(norms, *results):
        whole = whole.detach().requires_grad_()
        output = norm(whole)
        factor = torch.tensor([1, 1, 2, 2, 2.0]).view(-1, 1, 1, 1)
        (output**3 * factor).sum().backward()
        shared = [p.grad for p in norm.parameters()] + list(norm.buffers())
        expected = {
            'output': output,
            'input.grad': whole.grad,
            'eval': norm.eval()(whole),
        }
        for key, value in expected.items():
            mine = torch.cat([part[key] for part in parts])
            torch.testing.assert_close(mine, value, rtol=1e-3, atol=1e-3)
        for part in parts:
            assert len(part['shared']) == len(shared)
            for mine, value in zip(part['shared'], shared):
                torch.testing.assert_close(mine, value, rtol=1e-4, atol=1e-3)


def test_sync_bn_alone_is_batch_norm():
    norm = use_cpu_sync_bn(nn.SyncBatchNorm(2))
    input = torch.randn(3, 2, 4)
    expected = nn.BatchNorm1d(2)(input)
    torch.testing.assert_close(norm(input), expected)
    assert norm.state_dict().keys() == nn.BatchNorm1d(2).state_dict().keys()


def test_conversion_keeps_parameters_and_other_layers():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.Sequential(nn.SyncBatchNorm(2)).eval()
    )
    before = dict(model.named_parameters())
    converted = use_cpu_sync_bn(model)
    assert dict(converted.named_parameters()) == before
    assert type(converted[0]) is nn.Conv2d
    assert isinstance(converted[1][0], CPUSyncBatchNorm)
    assert not converted[1][0].training


def test_launchers_that_need_more(monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    monkeypatch.setattr(
        'mmvitcompress.compat.cpu_ddp.get_device', lambda: 'cpu'
    )
    with pytest.raises(ConfigError, match="but got 'slurm'"):
        enable_cpu_ddp({}, 'slurm')
    with pytest.raises(ConfigError, match=r'dist_train\.sh'):
        enable_cpu_ddp({}, 'pytorch')
    assert not enable_cpu_ddp({}, 'none')


def test_cuda_is_left_to_mmengine(monkeypatch):
    monkeypatch.setattr(
        'mmvitcompress.compat.cpu_ddp.get_device', lambda: 'cuda'
    )
    cfg = {}
    assert not enable_cpu_ddp(cfg, 'pytorch')
    assert cfg == {}
