"""What a resumed run says of a config that has changed in the meantime."""

from unittest.mock import ANY

import pytest
import torch

START = (
    "optim_wrapper['optimizer'] = dict("
    "type='AdamW', lr=0.01, betas=(0.9, 0.99), weight_decay=0.05)\n"
    "optim_wrapper['constructor'] = "
    "'mmvitcompress.ViTOptimWrapperConstructor'\n"
    "custom_imports = dict(imports=['mmvitcompress'])\n"
    "train_cfg['max_iters'] = {}\n"
)


@pytest.fixture
def resume(config, tool, tmp_path):
    """Trains four iterations, then goes on with other settings."""
    run = tmp_path / 'run'

    def resume(changes):
        first = config(START.format(4))
        assert tool('train', first, '--work-dir', run) == (0, ANY)
        path = config(START.format(8) + changes)
        status, error = tool('train', path, '--work-dir', run, '--resume')
        log = max(run.glob('*/*.log')).read_text()
        return status, error.strip().splitlines()[-1:], log

    return resume


def notices(log):
    return [x for x in log.splitlines() if 'overrides the config' in x]


def test_an_unchanged_config_is_not_mentioned(resume):
    status, _, log = resume('')
    assert status == 0 and 'iter: 4' in log
    assert not notices(log)


def test_what_the_checkpoint_overrides_is_said(resume):
    changes = (
        "optim_wrapper['optimizer'].update(\n"
        '    lr=0.02, betas=(0.8, 0.99), weight_decay=0.1)\n'
        "param_scheduler[0]['power'] = 2.0\n"
        "param_scheduler.append(dict(type='ConstantLR', by_epoch=False))\n"
    )
    status, _, log = resume(changes)
    assert status == 0
    (line,) = notices(log)
    for part in (
        'optimizer lr 0.01 (config: 0.02)',
        'optimizer weight_decay 0.05 (config: 0.1)',
        'optimizer betas (0.9, 0.99) (config: (0.8, 0.99))',
        'param_scheduler power 0.9 (config: 2.0)',
        '1 param_scheduler (config: 2)',
        'iter_4.pth',
        'load_from=',
    ):
        assert part in line


@pytest.mark.parametrize(
    ('changes', 'parts'),
    [
        (
            "model['backbone']['frozen_stages'] = 1\n",
            ['parameters in 2 groups', 'frozen_stages', 'load_from='],
        ),
        (
            "optim_wrapper['paramwise_cfg'] = dict(\n"
            "    custom_keys={'layer1': dict(lr_mult=0.1)})\n",
            ['groups', 'layer_decay'],
        ),
        (
            "optim_wrapper['optimizer'] = dict(type='SGD', lr=0.01)\n",
            ['trained by AdamW', 'asks for SGD'],
        ),
        (
            "optim_wrapper['optimizer']['type'] = 'Adam'\n",
            ['trained by AdamW', 'asks for Adam:'],
        ),
    ],
    ids=['frozen_stages', 'groups', 'SGD', 'Adam'],
)
def test_an_optimizer_that_cannot_go_on_is_a_sentence(resume, changes, parts):
    status, (line,), _ = resume(changes)
    assert status == 1
    assert line.startswith('train.py: error:')
    for part in parts:
        assert part in line


def test_weights_alone_are_no_run(tool, config, tmp_path):
    run, path = tmp_path / 'run', tmp_path / 'weights.pth'
    assert tool('train', config(START.format(4)), '--work-dir', run)[0] == 0
    content = torch.load(run / 'iter_4.pth')
    torch.save({'state_dict': content['state_dict']}, path)
    status, error = tool(
        'train', config(), '--work-dir', run, '--resume', path
    )
    assert status == 1
    assert 'has no message_hub, no meta, no optimizer; to train on' in error
