"""tools/export_pruned.py gives back segmentors and detectors as they are."""

import json

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from pruned import mask
from small_heads import fpn, mask2former_head, mask_rcnn

import mmvitcompress
from mmvitcompress.checkpoints.file import read_checkpoint, write_checkpoint
from mmvitcompress.engine.build import build, build_shape
from mmvitcompress.engine.export import classes_of, export, last_weights
from mmvitcompress.errors import CheckpointError
from mmvitcompress.inference import deployed_config
from mmvitcompress.models import CompressedViT

pytestmark = pytest.mark.slow

SEGMENTOR = """
custom_imports = dict(imports=['mmvitcompress'])
test_pipeline = load + pack
train_cfg.update(max_iters=2, val_interval=2)
model['backbone'] = dict(
    type='mmvitcompress.CompressedViT', compactors=True,
    token_merging=dict(layers=(2,)), out_indices=(0, 1),
    arch=dict(embed_dim=24, depth=2, num_heads=3, patch_size=8, img_size=32),
)
model['neck'] = dict(
    type='FPN', in_channels=[24, 24], out_channels=16, num_outs=2
)
model['decode_head'].update(in_channels=16, in_index=1)
model['auxiliary_head'] = dict(
    type='FCNHead', in_channels=16, in_index=0, channels=8, num_convs=1,
    concat_input=False, num_classes=3, loss_decode=dict(
        type='CrossEntropyLoss', loss_weight=0.4
    ),
)
"""
PLAIN = "model['backbone']['compactors'] = False\n"


@pytest.fixture
def run(config, tmp_path):
    """Config, checkpoint and model of a pruning run."""
    path = config(SEGMENTOR)
    torch.manual_seed(0)
    cfg = Config.fromfile(path)
    init_default_scope('mmseg')
    cfg.model.decode_head.norm_cfg.type = 'BN'
    model = MODELS.build(cfg.model).eval()
    with torch.no_grad():
        for param in model.parameters():
            param.add_(0.1 * torch.randn_like(param))
    mask(model)
    checkpoint = tmp_path / 'iter_2.pth'
    classes = dict(classes=('a', 'b', 'c'), palette=[[0, 0, 0]] * 3)
    meta = dict(
        arch=model.backbone.arch.to_dict(), iter=2, dataset_meta=classes
    )
    torch.save(dict(state_dict=model.state_dict(), meta=meta), checkpoint)
    return path, checkpoint, model


@pytest.fixture
def exported(run, tool, tmp_path):
    """Its config, the file, and the model that was trained."""
    path, checkpoint, model = run
    out, report = tmp_path / 'whole.pth', tmp_path / 'report.json'
    code, error = tool(
        *('export_pruned', path, checkpoint, out, '--divisor', 1),
        *('--json', report),
    )
    assert code == 0, error
    figures = json.loads(report.read_text())
    assert figures['compared'] == ['backbone', 'neck', 'logits']
    assert figures['folding_error'] < 1e-12
    assert figures['widths'] == [[5, 6, 56]] * 2
    return path, out, model


def test_the_whole_segmentor_is_the_trained_one(
    exported, run, tool, tmp_path, monkeypatch
):
    path, out, model = exported
    content = torch.load(out, weights_only=True)
    parts = {name.split('.')[0] for name in content['state_dict']}
    assert parts == {'backbone', 'neck', 'decode_head', 'auxiliary_head'}
    assert content['meta']['dataset_meta']['classes'] == ['a', 'b', 'c']
    images = torch.randn(2, 3, 32, 40)
    metas = [dict(img_shape=(32, 40), pad_shape=(32, 40))] * 2
    lines = []
    monkeypatch.setattr('mmvitcompress.engine.build.log', lines.append)
    small = build(Config.fromfile(path), out, 'test')
    assert any(f'are left out: {out} has none' in line for line in lines)
    with torch.no_grad():
        expected = model.encode_decode(images, metas)
        found = small.encode_decode(images, metas)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert small.backbone.arch.mlp_dims == (56, 56)
    # the run's own config tests both, unchanged
    figures = []
    for file in (run[1], out):
        metrics = tmp_path / 'metrics.json'
        code, error = tool(
            *('test', path, file, '--json', metrics),
            *('--work-dir', tmp_path / 'test'),
        )
        assert code == 0, error
        figures.append(json.loads(metrics.read_text())['mIoU'])
    assert figures[0] == figures[1]


def test_all_tools_take_the_file(exported, tool, data, tmp_path):
    path, out, _ = exported
    image, flops = data / 'images/validation/0.png', tmp_path / 'flops.json'
    shape = ('--shape', '32', '32')
    for name, *args in (
        ('predict', path, out, image, '--out', tmp_path / 'predicted'),
        ('benchmark', path, '--checkpoint', out, *shape, '--repeats', 1),
        ('get_flops', path, *shape, '--checkpoint', out, '--json', flops),
        ('export_onnx', path, tmp_path / 'x.onnx', '--checkpoint', out),
        ('visualize', 'channels', out, '--out', tmp_path / 'channels.png'),
        ('visualize', 'merges', path, out, '--out', tmp_path / 'merges.png'),
    ):
        code, error = tool(name, *args)
        assert code == 0, (name, error)
    counted = json.loads(flops.read_text())['parts']['backbone']['params']
    tensors = read_checkpoint(out).state_dict
    assert counted == sum(
        value.numel()
        for name, value in tensors.items()
        if name.startswith('backbone.')
    )


def test_openmmlab_takes_the_file(exported):
    from mmseg.apis import inference_model, init_model

    path, out, model = exported
    ready = init_model(deployed_config(path, out), str(out), 'cpu')
    assert ready.dataset_meta['classes'] == ['a', 'b', 'c']
    pixels = torch.randint(0, 255, (32, 32, 3)).byte().numpy()
    found = inference_model(ready, pixels).seg_logits.data
    data = dict(inputs=[torch.from_numpy(pixels).permute(2, 0, 1)])
    inputs = model.data_preprocessor(data, False)['inputs']
    with torch.no_grad():
        meta = dict(img_shape=(32, 32), pad_shape=(32, 32))
        (expected,) = model.encode_decode(inputs, [meta])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_backbones_take_the_whole_and_the_part(exported, run, tool, tmp_path):
    path, out, model = exported
    part = tmp_path / 'backbone.safetensors'
    code, error = tool(
        *('export_pruned', path, run[1], part),
        *('--divisor', 1, '--backbone-only'),
    )
    assert code == 0, error
    assert 'blocks.0.attn.qkv.weight' in read_checkpoint(part).state_dict
    assert not read_checkpoint(part).whole
    images = torch.randn(1, 3, 40, 24)
    with torch.no_grad():
        expected = model.backbone(images)
        for file in (part, out):
            alone = CompressedViT(checkpoint=str(file), out_indices=(0, 1))
            for mine, theirs in zip(alone.eval()(images), expected):
                torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert mmvitcompress.load(out).arch.qk_dims == (5, 5)
    code, error = tool('test', path, part)
    assert code == 1 and 'holds a backbone only' in error


def test_training_goes_on_from_the_weights_only(
    exported, config, tool, tmp_path
):
    path, out, _ = exported
    work = tmp_path / 'work'
    code, error = tool('train', path, '--work-dir', work, '--resume', out)
    assert code == 1 and f'load_from={out}' in error
    still = SEGMENTOR + PLAIN + "optim_wrapper['optimizer']['lr'] = 1e-20\n"
    still += f'load_from = {str(out)!r}\n'
    tuned = config(still, name='tuned')
    code, error = tool('train', tuned, '--work-dir', work)
    assert code == 0, error
    after = read_checkpoint(work / 'iter_2.pth')
    assert after.arch.mlp_dims == (56, 56)
    assert not after.pruning
    before = read_checkpoint(out).state_dict
    for name in before:
        if 'running' not in name and 'num_batches' not in name:
            torch.testing.assert_close(after.state_dict[name], before[name])
    # and is resumed as any other run
    longer = config(still + 'train_cfg.update(max_iters=4)\n', name='tuned')
    code, error = tool('train', longer, '--work-dir', work, '--resume')
    assert code == 0, error
    assert (work / 'iter_4.pth').is_file()
    # a config that prunes goes on pruning what is left
    work = tmp_path / 'further'
    options = ('--cfg-options', f'load_from={out}')
    code, error = tool('train', path, '--work-dir', work, *options)
    assert code == 0, error
    state = read_checkpoint(work / 'iter_2.pth')
    assert state.pruning and state.arch.qk_dims == (5, 5)
    part = tmp_path / 'part.pth'
    weights = CompressedViT(arch=after.arch).state_dict()
    write_checkpoint(part, weights, after.arch)
    code, error = tool('train', path, '--cfg-options', f'load_from={part}')
    assert code == 1 and 'set model.backbone.checkpoint' in error


def test_the_last_weights_of_an_averaging_run(run, tool, tmp_path):
    """As EMAHook saves: the average is the model, whose masked columns are
    still on their way; the last weights are beside it."""
    path, checkpoint, _ = run
    content = torch.load(checkpoint)
    last = {k: v.clone() for k, v in content['state_dict'].items()}
    for name, value in content['state_dict'].items():
        if name.endswith('compactors.mlp.weight'):
            value[:, :40] = 0.01
    content['ema_state_dict'] = {
        'steps': torch.tensor(2),
        **{f'module.{k}': v for k, v in last.items()},
    }
    averaged, out = tmp_path / 'averaged.pth', tmp_path / 'out.pth'
    torch.save(content, averaged)
    code, error = tool('export_pruned', path, averaged, out)
    assert code == 1 and '--last takes' in error and not out.exists()
    code, error = tool('export_pruned', path, averaged, out, '--last')
    assert code == 0, error
    code, error = tool('export_pruned', path, checkpoint, out, '--last')
    assert code == 1 and 'leave --last out' in error
    assert last_weights(read_checkpoint(averaged)).keys() == last.keys()


def pruned(cfg):
    """A config's model in which channels are masked, at random weights."""
    cfg = Config(dict(model=cfg, default_scope=cfg.pop('scope')))
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    mask(model)
    return model, lambda arch: build_shape(cfg, arch)


def backbone():
    arch = dict(embed_dim=24, depth=4, num_heads=3, patch_size=8, img_size=32)
    return dict(
        type='mmvitcompress.CompressedViT',
        arch=arch,
        token_merging=dict(layers=(2,)),
        compactors=True,
    )


def test_a_detector_keeps_its_heads():
    config = mask_rcnn(backbone(), fpn([24] * 4), 2, strides=[8] * 4)
    model, small = pruned(dict(config, scope='mmdet'))
    images = [torch.randn(1, 3, 64, 48), torch.randn(1, 3, 40, 72)]
    result = export(model, small, images, divisor=1)
    assert result.report['compared'] == ['backbone', 'neck']
    rest = {
        k: v for k, v in model.state_dict().items() if 'backbone.' not in k
    }
    assert any(key.startswith('roi_head.mask_head.') for key in rest)
    for key, value in rest.items():
        assert torch.equal(result.state_dict[key], value)
    alone = export(model, small, images, divisor=1, backbone_only=True)
    assert set(alone.state_dict) == {
        key.removeprefix('backbone.')
        for key in result.state_dict
        if key.startswith('backbone.')
    }


def test_mask2former_is_compared_in_float64():
    head = mask2former_head([24] * 4, 3, strides=[8] * 4, num_classes=3)
    config = dict(
        type='EncoderDecoder',
        scope='mmseg',
        backbone=backbone(),
        decode_head=dict(head, type='Mask2FormerHead'),
        test_cfg=dict(mode='whole'),
    )
    model, small = pruned(config)
    result = export(model, small, [torch.randn(1, 3, 64, 48)], divisor=1)
    assert result.report['compared'] == ['backbone', 'logits']
    assert result.report['folding_error'] < 1e-10


def test_a_head_that_was_changed_is_no_export():
    """The comparison sees what is behind the backbone."""
    config = mask_rcnn(backbone(), fpn([24] * 4), 2, strides=[8] * 4)
    model, small = pruned(dict(config, scope='mmdet'))

    def other(arch):
        made = small(arch)
        made.neck.fpn_convs[0].register_forward_hook(lambda *a: a[2] * 1.001)
        return made

    with pytest.raises(CheckpointError, match='not the same function'):
        export(model, other, [torch.randn(1, 3, 32, 32)], divisor=1)


def test_classes_are_noted_as_builtin_types(tmp_path):
    path = tmp_path / 'x.pth'
    for meta, expected in (
        ({}, {}),
        (dict(classes=None, palette='coco'), {}),
        (
            dict(classes=('a',), palette=[(1, 2, 3)], more=1),
            dict(classes=['a'], palette=[[1, 2, 3]]),
        ),
    ):
        weights = {'x.weight': torch.ones(1)}
        torch.save(
            dict(state_dict=weights, meta=dict(dataset_meta=meta)), path
        )
        found = classes_of(read_checkpoint(path))
        assert found.get('dataset_meta', {}) == expected
