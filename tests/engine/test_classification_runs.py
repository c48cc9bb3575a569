"""Small runs of a classifier with all that its training has."""

import json
import re
from typing import ClassVar

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch.utils.data import IterableDataset

from mmvitcompress.channels import is_compactor
from mmvitcompress.models import CompressedViT, ImageClassifier
from mmvitcompress.registry import DATASETS

pytestmark = pytest.mark.slow

ARCH = dict(embed_dim=24, depth=2, num_heads=3, patch_size=8, img_size=32)

CONFIG = """
custom_imports = dict(imports=['mmvitcompress'])
default_scope = 'mmvitcompress'
arch = dict(embed_dim=24, depth=2, num_heads=3, patch_size=8, img_size=32)
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='CompressedViT', arch=arch, token_merging=dict(layers=(2,))
    ),
    num_classes=3,
    data_preprocessor=dict(
        type='MixupPreprocessor', mixup_alpha=0.8, cutmix_alpha=1.0,
        label_smoothing=0.1,
    ),
    distillation=dict(
        teacher=dict(
            type='ImageClassifier',
            backbone=dict(type='CompressedViT', checkpoint={teacher!r}),
        ),
        alpha=0.25,
    ),
)
def loader(training):
    sampler = 'RepeatedAugSampler' if training else 'DefaultSampler'
    return dict(
        batch_size=4, num_workers=0, drop_last=training,
        sampler=dict(type=sampler, shuffle=training),
        dataset=dict(
            type='TimmDataset', data_root={data!r}, split='train',
            transform=dict(input_size=32, is_training=training),
        ),
        collate_fn=dict(type='default_collate'),
    )
train_dataloader = loader(True)
val_dataloader = loader(False)
test_dataloader = val_dataloader
del loader
val_evaluator = dict(type='TopKAccuracy', topk=(1, 2))
test_evaluator = val_evaluator
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=3, val_interval=1)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='CheckpointHook', interval=1),
)
log_processor = dict(window_size=1)
randomness = dict(seed=3)
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """12 images of three colours, and a teacher's checkpoint."""
    root = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for target in range(3):
        (root / 'train' / f'class{target}').mkdir(parents=True)
        for i in range(4):
            image = rng.integers(0, 80, (36, 36, 3), np.uint8)
            image[..., target] += 150
            Image.fromarray(image).save(
                root / 'train' / f'class{target}' / f'{i}.png'
            )
    peer = timm.create_model('test_convnext', num_classes=3)
    torch.save(peer.state_dict(), root / 'peer.pth')
    torch.manual_seed(0)
    model = ImageClassifier(dict(type='CompressedViT', arch=ARCH), 3)
    meta = {'arch': model.backbone.arch.to_dict()}
    torch.save(
        {'state_dict': model.state_dict(), 'meta': meta}, root / 'teacher.pth'
    )
    return root


@pytest.fixture
def config(tmp_path, folder):
    """Writes the config with changes to it; returns its path."""

    def write(changes='', data=folder):
        text = CONFIG.format(
            data=str(data), teacher=str(folder / 'teacher.pth')
        )
        path = tmp_path / 'tiny.py'
        path.write_text(text + changes)
        return str(path)

    return write


def read(path):
    return torch.load(path, map_location='cpu', weights_only=True)


def test_checkpoint_carries_shape_and_classifier(
    config, tool, helpers, tmp_path
):
    path = config()
    assert tool('train', path, '--work-dir', tmp_path / 'run') == (0, '')
    terms = [
        helpers.logged(tmp_path / 'run', key)
        for key in ('loss', 'loss_cls', 'loss_distill')
    ]
    # of 12 images in 3 copies each, 12 fill an epoch: 3 iterations
    assert len(terms[0]) == 9
    for step, loss in terms[0].items():
        assert loss == pytest.approx(terms[1][step] + terms[2][step])

    file = tmp_path / 'run' / 'epoch_3.pth'
    content = read(file)
    assert not any('teacher' in key for key in content['state_dict'])
    backbone = CompressedViT(checkpoint=str(file), out_indices=[1])
    assert backbone.arch.token_merging.layers == (2,)
    model = ImageClassifier(
        dict(type='CompressedViT', checkpoint=str(file)), 3
    ).eval()
    trained = ImageClassifier(
        dict(type='CompressedViT', arch=content['meta']['arch']), 3
    ).eval()
    trained.load_state_dict(content['state_dict'])
    image = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(image), trained(image))

    # tested without the teacher, whose file may be elsewhere by then
    changes = "model['distillation']['teacher']['backbone'].update("
    path = config(changes + "checkpoint='nowhere.pth')\n")
    status, _ = tool(
        *('test', path, file, '--work-dir', tmp_path / 'test'),
        *('--json', tmp_path / 'metrics.json'),
    )
    assert status == 0
    found = json.loads((tmp_path / 'metrics.json').read_text())
    seen = helpers.logged(tmp_path / 'run', 'top1')
    assert found['top1'] == pytest.approx(seen[max(seen)])


PRUNED = """
model['backbone'].update(compactors=True)
custom_hooks = [
    dict(type='EMAHook', momentum=0.1),
    dict(
        type='CDCPHook', target=0.3, warmup_epochs=0, increment=0.15,
        interval=2, settle_epochs=0, rules=dict(min_head_dim=2, min_mlp_dim=8),
    ),
]
optim_wrapper.update(
    constructor='ViTOptimWrapperConstructor',
    paramwise_cfg=dict(compactors=dict(lr=0.3)),
)
"""


def test_average_and_pruning_resume_exactly(config, tool, helpers, tmp_path):
    path = config(PRUNED)
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    status, error = tool('train', path, '--work-dir', whole)
    assert status == 0, error
    status, error = tool(
        *('train', path, '--work-dir', broken),
        *('--resume', whole / 'epoch_1.pth'),
    )
    assert status == 0, error
    expected = helpers.logged(whole)
    resumed = helpers.logged(broken)
    assert len(expected) == 9 and len(resumed) == 6
    assert resumed == {step: expected[step] for step in resumed}
    theirs, mine = read(whole / 'epoch_3.pth'), read(broken / 'epoch_3.pth')
    for kind in ('state_dict', 'ema_state_dict'):
        assert mine[kind].keys() == theirs[kind].keys()
        assert not any('teacher' in key for key in mine[kind])
        for key, value in theirs[kind].items():
            assert torch.equal(mine[kind][key], value), key
    # bool masks were kept in step, the weights averaged
    averaged, current = theirs['state_dict'], theirs['ema_state_dict']
    masks = [key for key in averaged if averaged[key].dtype == torch.bool]
    assert masks and all(is_compactor(key) for key in masks)
    assert any(not averaged[key].all() for key in masks)
    for key in masks:
        assert torch.equal(averaged[key], current[f'module.{key}'])
    key = 'head.fc.weight'
    assert not torch.equal(averaged[key], current[f'module.{key}'])


WRONG = {
    'odd': (
        "train_dataloader['batch_size'] = 3\n",
        r'a batch has 3 images: set an even train_dataloader\.batch_size',
    ),
    'rest': (
        'train_dataloader.update(batch_size=10, drop_last=False)\n'
        "train_dataloader['sampler'] = dict(type='DefaultSampler')\n"
        "train_dataloader['dataset'].update(hold_out=0.6)\n",
        r'the last batch of an epoch has \d images',
    ),
    'classes': (
        'model.update(num_classes=2, distillation=None)\n',
        r'model\.num_classes must be at least 3.* got 2',
    ),
    'teacher': (
        'model.update(num_classes=4)\n',
        r'teacher knows 3 classes, but the model has 4',
    ),
    'mean': (
        "model['distillation']['teacher'] = dict(\n"
        "    type='TimmClassifier', name='test_convnext', num_classes=3,\n"
        "    checkpoint_path=train_dataloader['dataset']['data_root']\n"
        "    + '/peer.pth')\n"
        "train_dataloader['dataset']['transform']['mean'] = (0.5,) * 3\n",
        r'teacher\.input_mean must be \(0\.5, 0\.5, 0\.5\)',
    ),
    'smoothing': (
        'model.update(label_smoothing=0.1)\n',
        r'smoothed twice',
    ),
}


@pytest.mark.parametrize('case', WRONG)
def test_refused_before_training(config, tool, helpers, tmp_path, case):
    changes, message = WRONG[case]
    status, error = tool('train', config(changes), '--work-dir', tmp_path)
    assert status == 1
    assert len(error.splitlines()) == 1
    assert re.search(message, error), error
    assert not helpers.logged(tmp_path)


def copy_images(folder, target, change):
    """Copies the images; ``change`` then does something to the folder."""
    for file in sorted((folder / 'train').rglob('*.png')):
        for split in ('train', 'val'):
            new = target / split / file.parent.name / file.name
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(file.read_bytes())
    change(target)
    return target


def test_missing_validation_class_is_noticed(config, tool, folder, tmp_path):
    """Without the folder class1, class2 would be class 1."""

    def change(root):
        for file in (root / 'val' / 'class1').iterdir():
            file.unlink()
        (root / 'val' / 'class1').rmdir()

    data = copy_images(folder, tmp_path / 'data', change)
    changes = "val_dataloader['dataset'].update(split='val')\n"
    status, error = tool(
        'train', config(changes, data), '--work-dir', tmp_path
    )
    assert status == 1
    assert "class 'class2' is 1 in the validation data, but 2" in error


def test_damaged_image_in_a_worker_is_one_line(config, tool, folder, tmp_path):
    def change(root):
        (root / 'train' / 'class0' / '0.png').write_bytes(b'x')

    data = copy_images(folder, tmp_path / 'data', change)
    changes = 'train_dataloader.update(num_workers=1)\n'
    status, error = tool(
        'train', config(changes, data), '--work-dir', tmp_path
    )
    assert status == 1
    assert error.startswith('train.py: error: image ')
    assert 'class0/0.png cannot be read' in error
    assert 'Traceback' not in error


class Sequence(IterableDataset):
    """What can only be read in sequence: nine images of three classes."""

    class_to_idx = None
    batch_size, num_workers = 4, 0
    epochs: ClassVar = []

    def __len__(self):
        return 9

    def __iter__(self):
        for i in range(9):
            yield torch.full((3, 32, 32), float(i)), i % 3

    def set_epoch(self, epoch):
        self.epochs.append(epoch)


SEQUENCE = """
train_dataloader.update(dataset=dict(type='Sequence'), sampler=None)
"""


@pytest.fixture
def sequence():
    DATASETS.register_module(module=Sequence, force=True)
    Sequence.epochs.clear()


def test_data_in_sequence(config, tool, helpers, tmp_path, sequence):
    path = config(SEQUENCE)
    status, error = tool('train', path, '--work-dir', tmp_path / 'run')
    assert status == 0, error
    assert len(helpers.logged(tmp_path / 'run')) == 3 * 2
    assert Sequence.epochs == [0, 1, 2]
    for changes, message in (
        (
            "train_dataloader.update(sampler=dict(type='DefaultSampler'))\n",
            r'set sampler=None',
        ),
        (
            'train_dataloader.update(batch_size=2)\n',
            r'batch_size of the data set \(4\) and of its dataloader \(2\)',
        ),
        (
            "train_cfg = dict(type='IterBasedTrainLoop', max_iters=9)\n",
            r"set train_cfg\.type='EpochBasedTrainLoop'",
        ),
    ):
        status, error = tool(
            *('train', config(SEQUENCE + changes)),
            *('--work-dir', tmp_path / 'wrong'),
        )
        assert status == 1 and re.search(message, error), error


def test_labels_of_unknown_data(config, tool, tmp_path, sequence):
    changes = SEQUENCE + 'model.update(num_classes=2, distillation=None)\n'
    status, error = tool('train', config(changes), '--work-dir', tmp_path)
    assert status == 1
    assert 'labels must lie in 0..1, but got 2' in error


def test_two_processes(config, helpers, tmp_path):
    """Both see their share of the repeats, and end with the same model."""
    changes = """
train_dataloader.update(batch_size=2)
train_cfg.update(max_epochs=1)
custom_hooks = [dict(type='EMAHook')]
"""
    done = helpers.execute(
        [
            *(helpers.root / 'tools' / 'dist_train.sh', config(changes), 2),
            *('--work-dir', tmp_path / 'run'),
        ],
        PORT=str(helpers.free_port()),
    )
    assert done.returncode == 0, done.stderr
    # 12 of the 36 copies, 6 on each, in batches of 2
    losses = helpers.logged(tmp_path / 'run')
    assert len(losses) == 3 and all(np.isfinite(list(losses.values())))
    content = read(tmp_path / 'run' / 'epoch_1.pth')
    assert content['meta']['arch']['token_merging'] is not None
    assert len(content['rng_states']) == 2
