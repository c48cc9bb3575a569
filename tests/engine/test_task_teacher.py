"""A dense segmentor teaches its compressed copy while that learns the task."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from small_heads import fpn, mask_rcnn
from torch import nn

from mmvitcompress.checkpoints.file import read_checkpoint
from mmvitcompress.engine.build import build
from mmvitcompress.engine.hooks import TaskTeacherHook
from mmvitcompress.engine.hooks.task_teacher import feature_distance
from mmvitcompress.errors import ConfigError

pytestmark = pytest.mark.slow

DENSE = """
custom_imports = dict(imports=['mmvitcompress'])
param_scheduler = []  # would follow the length that the command line gives
train_cfg.update(max_iters=2, val_interval=2)
model['backbone'] = dict(
    type='mmvitcompress.CompressedViT', out_indices=(0, 2), drop_path_rate=0.1,
    arch=dict(embed_dim=24, depth=3, num_heads=3, patch_size=8, img_size=32),
)
model['decode_head'].update(in_channels=24, in_index=1)
"""
SMALL = DENSE + "model['backbone'].update(token_merging=dict(layers=(2,)))\n"
TAUGHT = (
    SMALL
    + """
custom_hooks = [dict(
    type='TaskTeacherHook', config={config!r}, checkpoint={checkpoint!r},
    temperature=2.0,
)]
default_hooks['checkpoint'].update(interval=2)
"""
)


@pytest.fixture
def teacher(config, tool, tmp_path):
    path, work = config(DENSE, name='dense'), tmp_path / 'dense'
    code, error = tool('train', path, '--work-dir', work)
    assert code == 0, error
    return dict(config=path, checkpoint=str(work / 'iter_2.pth'))


def model_of(path):
    cfg = Config.fromfile(path)
    init_default_scope('mmseg')
    torch.manual_seed(1)
    cfg.model.decode_head.norm_cfg.type = 'BN'
    return MODELS.build(cfg.model)


def taught(model, scope='mmseg', **kwargs):
    hook = TaskTeacherHook(**kwargs)
    scope = DefaultScope.get_instance(f'of_{scope}', scope_name=scope)
    hook.before_train(SimpleNamespace(model=model, default_scope=scope))
    return hook


def losses(model, images):
    """What a step of training gets, from random labels."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(0)
    samples = []
    for _ in images:
        labels = torch.randint(0, 3, (1, 32, 32), generator=generator)
        sample = SegDataSample(metainfo=dict(img_shape=(32, 32)))
        sample.gt_sem_seg = PixelData(data=labels)
        samples.append(sample)
    torch.manual_seed(2)  # of what is left out at random
    return model(inputs=images, data_samples=samples, mode='loss')


def by_hand(student, teacher, temperature):
    """Both losses of (maps, logits), in NumPy."""
    ours, theirs = (
        [np.moveaxis(x.detach().double().numpy(), 1, -1) for x in maps]
        for maps in (student, teacher)
    )
    each = []
    for a, b in zip(ours[:-1], theirs[:-1]):
        a, b = (
            (x - x.mean(-1, keepdims=True))
            / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
            for x in (a, b)
        )
        each.append(np.mean((a - b) ** 2))
    q, p = (np.exp(x[-1] / temperature) for x in (ours, theirs))
    q, p = (x / x.sum(-1, keepdims=True) for x in (q, p))
    divergence = (p * np.log(p / q)).sum(-1).mean()
    return temperature**2 * divergence, np.mean(each)


@pytest.mark.parametrize('restored', [True, False])
def test_losses_are_those_by_hand(teacher, config, restored):
    changes = '' if restored else "model['backbone']['restore'] = False\n"
    if not restored:
        changes += "model['neck'] = dict(type='mmvitcompress.UnmergeUpsample')"
    student = model_of(config(SMALL + changes)).train()
    images = torch.randn(2, 3, 32, 32)
    plain = losses(student, images)
    hook = taught(
        student, temperature=2.0, logits=0.5, features=2.0, **teacher
    )
    kept = {}

    def note(name):
        def hook(module, inputs, output):
            kept[name] = output

        return hook

    other = hook.teacher
    neck = student.neck if not restored else student.backbone
    for name, part in (
        ('ours', neck),
        ('our logits', student.decode_head.conv_seg),
        ('theirs', other.backbone),
        ('their logits', other.decode_head.conv_seg),
    ):
        part.register_forward_hook(note(name))
    found = losses(student, images)
    logits, features = by_hand(
        [*kept['ours'], kept['our logits']],
        [*kept['theirs'], kept['their logits']],
        2.0,
    )
    assert float(found.pop('loss_teacher_logits')) == pytest.approx(
        0.5 * logits, rel=1e-4
    )
    assert float(found['loss_teacher_features']) == pytest.approx(
        2.0 * features, rel=1e-4
    )
    assert float(features) > 0.01
    # the model's own are what they were
    del found['loss_teacher_features']
    for name, value in plain.items():
        torch.testing.assert_close(found[name], value)
    # and all is as it was afterwards
    hook.after_train(None)
    assert losses(student, images).keys() == plain.keys()


@pytest.mark.parametrize('logits', [0.0, 1.0])
def test_what_a_guided_neck_makes_of_maps_is_compared(teacher, config, logits):
    neck = dict(type='mmvitcompress.UnmergeGuided', embed_dim=24, num_ins=2)
    changes = f"model['neck'] = {neck}\n"
    student = model_of(config(SMALL + changes)).train()
    nn.init.normal_(student.neck.details['1'].out.weight)
    hook = taught(student, features=1.0, logits=logits, **teacher)
    images, kept = torch.randn(2, 3, 32, 32), {}
    for name, part in (('ours', student.neck), ('it', hook.teacher.backbone)):
        part.register_forward_hook(
            lambda *args, n=name: kept.update({n: args[2]})
        )
    found = losses(student, images)['loss_teacher_features']
    assert float(found) == float(feature_distance(kept['ours'], kept['it']))
    found.backward()
    assert student.neck.details['1'].out.weight.grad.abs().sum() > 0


def test_a_teacher_may_have_a_guided_neck_itself(teacher, config):
    neck = dict(type='mmvitcompress.UnmergeGuided', embed_dim=24, num_ins=2)
    path = config(DENSE + f"model['neck'] = {neck}\n", name='guided')
    torch.save(
        dict(state_dict=model_of(path).state_dict()), teacher['checkpoint']
    )
    student = model_of(config(SMALL)).train()
    own = dict(teacher, config=path)
    for logits in (0.0, 1.0):
        hook = taught(student, logits=logits, **own)
        found = losses(student, torch.randn(2, 3, 32, 32))
        assert float(found['loss_teacher_features']) > 0
        hook.after_train(None)


def test_gradients_reach_the_student_alone(teacher, config):
    student = model_of(config(SMALL)).train()
    hook = taught(student, **teacher)
    found = losses(student, torch.randn(2, 3, 32, 32))
    (found['loss_teacher_logits'] + found['loss_teacher_features']).backward()
    for part in (student.backbone, student.decode_head.convs):
        assert any(p.grad.abs().sum() > 0 for p in part.parameters())
    assert all(p.grad is None for p in hook.teacher.parameters())
    assert not hook.teacher.training
    assert not any('teacher' in name for name in student.state_dict())


def test_a_model_that_says_the_same_has_nothing_to_learn(teacher):
    student = build(
        Config.fromfile(teacher['config']), teacher['checkpoint'], 'test'
    )
    taught(student, **teacher)
    # in evaluation mode nothing is random, but then nothing is watched
    for part in (student.backbone, student.decode_head, student):
        part.training = True
    student.decode_head.conv_seg.training = True
    found = losses(student, torch.randn(2, 3, 32, 32))
    assert float(found['loss_teacher_features']) == 0
    assert float(found['loss_teacher_logits']) == pytest.approx(0, abs=1e-6)


def test_a_run_resumes_exactly_and_holds_no_teacher(
    teacher, config, tool, helpers, tmp_path
):
    path = config(TAUGHT.format(**teacher), name='taught')
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    four = ('--cfg-options', 'train_cfg.max_iters=4')
    assert tool('train', path, '--work-dir', whole, *four)[0] == 0
    assert tool('train', path, '--work-dir', cut)[0] == 0
    code, error = tool('train', path, '--work-dir', cut, '--resume', *four)
    assert code == 0, error
    ours, theirs = (
        read_checkpoint(folder / 'iter_4.pth').state_dict
        for folder in (cut, whole)
    )
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name
    plain = config(SMALL, name='plain')
    assert tool('train', plain, '--work-dir', tmp_path / 'plain')[0] == 0
    without = read_checkpoint(tmp_path / 'plain/iter_2.pth').state_dict
    assert without.keys() == theirs.keys()
    for name in ('loss_teacher_logits', 'loss_teacher_features'):
        assert len(helpers.logged(whole, name)) == 4
    both = helpers.logged(whole)
    parts = ('loss_teacher_logits', 'loss_teacher_features', 'decode.loss_ce')
    for step, loss in both.items():
        each = [helpers.logged(whole, part)[step] for part in parts]
        assert loss == pytest.approx(sum(each), rel=1e-4)
    out = tmp_path / 'small.pth'
    code, error = tool('export_pruned', path, whole / 'iter_4.pth', out)
    assert code == 0, error


def test_two_processes_train_as_one(teacher, config, helpers, tmp_path):
    changes = "model['backbone']['drop_path_rate'] = 0.0\n"
    path = config(TAUGHT.format(**teacher) + changes, name='taught')
    one, two = tmp_path / 'one', tmp_path / 'two'
    done = helpers.train(path, '--work-dir', one, '--no-validate')
    assert done.returncode == 0, done.stderr
    done = helpers.execute(
        [
            helpers.root / 'tools' / 'dist_train.sh',
            *(path, 2, '--work-dir', two, '--no-validate', '--cfg-options'),
            'train_dataloader.batch_size=2',
        ],
        PORT=str(helpers.free_port()),
    )
    assert done.returncode == 0, done.stderr
    for name in ('loss_teacher_logits', 'loss_teacher_features'):
        expected = helpers.logged(one, name)
        assert len(expected) == 2
        assert helpers.logged(two, name) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ('changes', 'kwargs', 'message'),
    [
        ("model['decode_head']['num_classes'] = 4", {}, 'they must be as man'),
        ("model['data_preprocessor']['std'] = [1.0] * 3", {}, 'images have s'),
        ("model['backbone']['out_indices'] = (2,)", {}, 'give both the same'),
        ('', dict(config='no.py'), "'no.py' not found"),
        ('', dict(checkpoint='no.pth'), "'no.pth' not found"),
    ],
)
def test_teachers_that_cannot_teach(
    teacher, config, tool, changes, kwargs, message
):
    text = TAUGHT.format(**teacher | kwargs)
    if 'out_indices' in changes:
        changes += "\nmodel['decode_head']['in_index'] = 0"
    code, error = tool('train', config(text + changes + '\n', name='x'))
    assert code == 1 and message in error.strip().splitlines()[-1]


def detector(**backbone):
    arch = dict(embed_dim=24, depth=4, num_heads=3, patch_size=8, img_size=32)
    backbone = dict(type='mmvitcompress.CompressedViT', arch=arch, **backbone)
    model = mask_rcnn(backbone, fpn([24] * 4), 2, strides=[8] * 4)
    cfg = Config(dict(default_scope='mmdet', model=model))
    init_default_scope('mmdet')
    return cfg, MODELS.build(cfg.model).train()


def test_a_detector_learns_from_features(teacher, tmp_path):
    from mmdet.testing import demo_mm_inputs

    cfg, dense = detector()
    own = dict(
        config=str(tmp_path / 'det.py'), checkpoint=str(tmp_path / 'det.pth')
    )
    cfg.dump(own['config'])
    torch.save(dict(state_dict=dense.state_dict()), own['checkpoint'])
    _, student = detector(token_merging=dict(layers=(2,)))
    taught(student, 'mmdet', logits=0, **own)
    shapes = [[3, 64, 48], [3, 40, 56]]
    data = demo_mm_inputs(2, shapes, num_classes=2, with_mask=True)
    found = student(**student.data_preprocessor(data, True), mode='loss')
    assert 'loss_teacher_logits' not in found and 'loss_mask' in found
    assert float(found['loss_teacher_features']) > 0
    with pytest.raises(ConfigError, match='MaskRCNN has no conv_seg'):
        taught(student, 'mmdet', **own)
    with pytest.raises(ConfigError, match='of mmseg, but the run is one of'):
        taught(student, 'mmdet', **teacher)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(logits=-1), 'logits must be'),
        (dict(features='a'), 'features must be'),
        (dict(temperature=0), 'temperature must be'),
        (dict(logits=0, features=0), 'leave TaskTeacherHook out'),
    ],
)
def test_wrong_arguments_are_named(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        TaskTeacherHook('x.py', 'x.pth', **kwargs)
