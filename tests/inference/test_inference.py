"""Trained models on images and videos: ours, and OpenMMLab's own ways."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from disks import full_disk
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from runs import forget_runs

from mmvitcompress.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    WriteError,
)
from mmvitcompress.inference import Predictor, deployed_config, predict
from mmvitcompress.inference.inputs import (
    Frame,
    Input,
    find_sources,
    read_frames,
)
from mmvitcompress.inference.outputs import Writer, paint
from mmvitcompress.inference.predicting import batches
from mmvitcompress.utils import cli

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NARROW = dict(
    base='vit_micro',
    qk_dims=[24, 32, 16, 8, 8, 8, 8, 8],
    v_dims=24,
    mlp_dims=64,
)
CONFIGS = {
    # its backbone names a checkpoint that nobody has here
    'segmentation': 'upernet_cait_vit_micro_digits.py',
    'detection': 'mask_rcnn_atme_vit_micro_digits.py',
    'classification': 'imagenet/cait_vit_micro_digits.py',
}
CLASSES = {'segmentation': ('paper', 'ink')}


@pytest.fixture(scope='session')
def runs(tmp_path_factory):
    """For each task a config and what a run of it might have written."""
    root, made = tmp_path_factory.mktemp('runs'), {}
    for task, name in CONFIGS.items():
        path = str(ROOT / 'configs' / name)
        cfg = Config.fromfile(path)
        init_default_scope(cfg.default_scope)
        cfg.model.backbone.update(
            arch=NARROW, checkpoint=None, compactors=False
        )
        cfg.model.pop('distillation', None)
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        for name, parameter in model.named_parameters():
            if 'conv_seg' in name or 'fc_cls' in name or 'head.fc' in name:
                torch.nn.init.normal_(parameter, std=0.5)
        meta = dict(arch=model.backbone.arch.to_dict())
        if task in CLASSES:
            palette = [[255, 255, 255], [200, 30, 30]]
            classes = dict(classes=CLASSES[task], palette=palette)
            meta['dataset_meta'] = classes
        checkpoint = root / f'{task}.pth'
        torch.save(dict(state_dict=model.state_dict(), meta=meta), checkpoint)
        made[task] = (path, str(checkpoint))
    return made


def draw(seed, shape=(64, 96)):
    rng = np.random.RandomState(seed)
    small = rng.randint(0, 256, (8, 12, 3), np.uint8)
    return cv2.resize(small, shape[::-1])


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    """Three images, of two sizes, and a text."""
    root = tmp_path_factory.mktemp('photos')
    (root / 'sub').mkdir()
    cv2.imwrite(str(root / 'a.png'), draw(1))
    cv2.imwrite(str(root / 'b.png'), draw(2))
    cv2.imwrite(str(root / 'sub' / 'a.bmp'), draw(3, (96, 64)))
    (root / 'notes.txt').write_text('no image')
    return root


@pytest.fixture(scope='session')
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp('video') / 'ride.avi'
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*'MJPG'), 5, (96, 64)
    )
    for seed in range(3):
        writer.write(draw(seed))
    writer.release()
    return path


# -- with OpenMMLab's own functions -----------------------------------------


def test_segmentors_as_mmseg_has_it(runs, folder):
    apis = pytest.importorskip('mmseg.apis')
    config, checkpoint = runs['segmentation']
    with pytest.raises(CheckpointError, match='not found'):
        apis.init_model(config, checkpoint, device='cpu')
    image = str(folder / 'a.png')
    ready = deployed_config(config, checkpoint)
    model = apis.init_model(ready, checkpoint, device='cpu')
    assert model.backbone.arch.qk_dims == tuple(NARROW['qk_dims'])
    assert model.dataset_meta['classes'] == CLASSES['segmentation']
    first = apis.inference_model(model, image).pred_sem_seg.data[0].numpy()
    assert first.shape == (64, 96) and len(np.unique(first)) == 2
    pair = apis.inference_model(model, [cv2.imread(image)] * 2)
    assert len(pair) == 2
    # the checkpoint of the whole model serves as the backbone's, too
    options = {'model.backbone.checkpoint': checkpoint}
    model = apis.init_model(config, checkpoint, 'cpu', options)
    again = apis.inference_model(model, image).pred_sem_seg.data[0].numpy()
    assert np.array_equal(again, first)
    inferencer = apis.MMSegInferencer(ready, checkpoint, device='cpu')
    found = inferencer(image, return_vis=True)
    assert np.array_equal(found['predictions'], first)
    assert found['visualization'].shape == (64, 96, 3)


def test_detectors_as_mmdet_has_it(runs, folder):
    apis = pytest.importorskip('mmdet.apis')
    config, checkpoint = runs['detection']
    image = str(folder / 'a.png')
    ready = deployed_config(config, checkpoint)
    # mmdet reads the data set that the config names, for its colours
    ready.test_dataloader.dataset.metainfo = dict(palette=[(1, 2, 3)] * 10)
    model = apis.init_detector(
        ready, checkpoint, palette='random', device='cpu'
    )
    assert model.backbone.arch.qk_dims == tuple(NARROW['qk_dims'])
    found = apis.inference_detector(model, image).pred_instances
    assert len(found) > 0 and found.masks.shape[1:] == (64, 96)
    inferencer = apis.DetInferencer(
        ready, checkpoint, device='cpu', palette='random'
    )
    boxes = inferencer(image)['predictions'][0]['bboxes']
    assert np.allclose(boxes, found.bboxes.numpy(), atol=1e-4)


CLEAN = """
import sys, types
# what a compiled MMCV has, as far as importing it asks for
class Operations(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)
        return lambda *args, **kwargs: None
sys.modules['mmcv._ext'] = Operations('mmcv._ext')
from mmseg.apis import MMSegInferencer, init_model
assert 'mmvitcompress' not in sys.modules
options = {'model.backbone.checkpoint': sys.argv[2]}
model = init_model(sys.argv[1], sys.argv[2], 'cpu', options)
assert type(model.backbone).__name__ == 'CAITDeiT'
"""


def test_a_clean_process_imports_what_a_config_names(runs, tmp_path):
    """Where MMCV's operations are compiled, no import of ours is needed."""
    config, checkpoint = runs['segmentation']
    cfg = Config.fromfile(config)
    cfg.pop('custom_imports')
    cfg.dump(tmp_path / 'config.py')
    subprocess.run(
        [sys.executable, '-c', CLEAN, tmp_path / 'config.py', checkpoint],
        check=True,
        cwd=ROOT,
    )


# -- predict ----------------------------------------------------------------


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_segmentation_of_a_folder(runs, folder, tmp_path):
    report = predict(
        *runs['segmentation'], [folder], tmp_path, 'cpu', 2, progress=False
    )
    assert report == json.loads((tmp_path / 'predictions.json').read_text())
    assert report['task'] == 'segmentation' and report['images'] == 3
    assert report['classes'] == ['paper', 'ink']
    predictor = Predictor(*runs['segmentation'], device='cpu')
    names = ['a', 'b', 'sub/a']
    for record, name in zip(report['inputs'], names, strict=True):
        image = read(record['input'])
        labels = read(tmp_path / 'labels' / f'{name}.png')
        (expected,) = predictor([image])  # alone, not in a batch
        assert np.array_equal(labels, expected.pred_sem_seg.data[0].numpy())
        overlay = read(tmp_path / 'overlay' / f'{name}.png')
        # half the image, half the colour of the class (palettes are RGB)
        colours = np.array([[255, 255, 255], [200, 30, 30]])[:, ::-1]
        blend = image * 0.5 + colours[labels] * 0.5
        assert np.abs(overlay - blend).max() <= 1
    legend = read(tmp_path / 'legend.png')
    assert [legend[row, 8].tolist() for row in (12, 36)] == [
        *([255, 255, 255], [30, 30, 200])
    ]
    # results in the folder itself are not taken for images
    shutil.copytree(folder, tmp_path / 'photos')
    out = tmp_path / 'photos' / 'out'
    shutil.copytree(tmp_path / 'overlay', out)
    again = find_sources([out.parent], besides=out)
    assert [source.name for source in again] == names
    assert len(find_sources([out.parent])) == 6


def test_segmentation_of_a_video(runs, video, tmp_path, capsys):
    report = predict(*runs['segmentation'], [str(video)], tmp_path, 'cpu', 2)
    assert '3/3' in capsys.readouterr().err or report['images'] == 3
    (record,) = report['inputs']
    assert 'frames' not in record
    labels = sorted((tmp_path / 'labels' / 'ride').iterdir())
    assert [path.name for path in labels] == [f'{i:06d}.png' for i in range(3)]
    frames = list(read_frames(find_sources([video]), {}))
    predictor = Predictor(*runs['segmentation'], device='cpu')
    for path, frame in zip(labels, frames, strict=True):
        (expected,) = predictor([frame.image])
        expected = expected.pred_sem_seg.data[0].numpy()
        assert np.array_equal(read(path), expected)
    written = list(read_frames(find_sources([tmp_path / 'overlay']), {}))
    assert [f.image.shape for f in written] == [(64, 96, 3)] * 3
    written = cv2.VideoCapture(record['overlay'])
    assert written.get(cv2.CAP_PROP_FPS) == 5


def test_detection(runs, folder, video, tmp_path):
    from pycocotools.mask import decode

    report = predict(
        *runs['detection'],
        [folder / 'a.png', video],
        tmp_path,
        'cpu',
        score_threshold=0.06,
        progress=False,
    )
    image, film = report['inputs']
    stored = json.loads(Path(image['detections']).read_text())
    (expected,) = Predictor(*runs['detection'], 'cpu')([draw(1)])
    expected = expected.pred_instances
    expected = expected[expected.scores >= 0.06].numpy()
    found = stored['detections']
    assert len(found) == len(expected) > 0
    assert [f['label'] for f in found] == expected.labels.tolist()
    assert all(f['class'] == report['classes'][f['label']] for f in found)
    boxes = [f['box'] for f in found]
    assert np.allclose(boxes, expected.bboxes, atol=1e-3)
    for entry, mask in zip(found, expected.masks):
        assert np.array_equal(decode(entry['mask']), mask)
    assert read(image['overlay']).shape == (64, 96, 3)
    frames = json.loads(Path(film['detections']).read_text())['frames']
    assert len(frames) == 3 and all('detections' in f for f in frames)


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_nothing_is_drawn_where_that_is_switched_off(
    task, runs, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(Writer, '_draw', lambda *args: pytest.fail('drawn'))
    report = predict(
        *runs[task],
        [folder / 'a.png'],
        tmp_path,
        'cpu',
        progress=False,
        overlay=False,
    )
    (record,) = report['inputs']
    kept = 'detections' if task == 'detection' else 'labels'
    assert Path(record[kept]).is_file()
    assert 'overlay' not in record
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        'predictions.json',
        'predictions' if task == 'detection' else 'labels',
    }
    with pytest.raises(ConfigError, match='overlay must be True or False'):
        predict(*runs[task], [folder], tmp_path, 'cpu', overlay='no')


def test_classification(runs, folder, video, tmp_path):
    path, checkpoint = runs['classification']
    report = predict(
        path, checkpoint, [folder, video], tmp_path, 'cpu', 3, topk=2
    )
    predictor = Predictor(path, checkpoint, 'cpu')
    assert predictor.classes == tuple('0123456789')
    for record in report['inputs'][:3]:
        (scores,) = predictor([read(record['input'])])
        assert scores.sum() == pytest.approx(1)
        best = scores.argsort(descending=True)[:2].tolist()
        assert [entry['label'] for entry in record['top']] == best
        assert record['top'][0]['score'] == pytest.approx(
            scores.max().item(), abs=1e-5
        )
    assert len(report['inputs'][3]['frames']) == 3
    with pytest.raises(ConfigError, match='10 classes apart, but 2 names'):
        Predictor(path, checkpoint, 'cpu', classes=['a', 'b'])


def test_an_exported_classifier(runs, folder, tmp_path):
    path, checkpoint = runs['classification']
    content = torch.load(checkpoint, weights_only=True)
    content['state_dict'] = {
        name.removeprefix('backbone.').replace('head.fc.', 'head.'): value
        for name, value in content['state_dict'].items()
    }
    exported = tmp_path / 'small.pth'
    torch.save(content, exported)
    image = [draw(1)]
    (a,), (b,) = (
        Predictor(path, each, 'cpu')(image) for each in (checkpoint, exported)
    )
    assert torch.equal(a, b)
    for name in ('head.weight', 'head.bias'):
        del content['state_dict'][name]
    torch.save(content, exported)
    with pytest.raises(CheckpointError, match='no classifier for 10'):
        Predictor(path, exported, 'cpu')
    with pytest.raises(CheckpointError, match='holds a backbone only'):
        deployed_config(runs['segmentation'][0], exported)


def test_batches_are_of_one_size():
    source = Input(Path('x.png'), 'x')
    shapes = [(4, 4, 3)] * 3 + [(4, 5, 3)] + [(4, 4, 3)]
    frames = [Frame(source, 0, np.zeros(shape)) for shape in shapes]
    sizes = [len(batch) for batch in batches(frames, 2)]
    assert sizes == [2, 1, 1, 1]


def test_the_background_is_left_as_it_is():
    image = np.full((1, 3, 3), 100, np.uint8)
    colours = [(153, 153, 153), (0, 200, 0)]
    painted = paint(image, np.array([[0, 1, 0]]), colours, 0.5, unpainted=0)
    assert painted.tolist() == [[[100] * 3, [50, 150, 50], [100] * 3]]


# -- refused ----------------------------------------------------------------


def test_wrong_inputs(tmp_path, folder):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'a.png').write_bytes((folder / 'a.png').read_bytes())
    for inputs, message in (
        (['none.png'], "'none.png' not found"),
        ([tmp_path / 'empty'], 'no images or videos in folder'),
        ([folder / 'notes.txt'], 'neither an image'),
        ([folder / 'a.png', tmp_path / 'a.png'], 'the same files'),
        ([], 'no inputs'),
    ):
        with pytest.raises(DataError, match=message):
            find_sources(inputs)


@pytest.mark.parametrize('task', CONFIGS)
def test_bad_files_cost_no_others(runs, folder, video, tmp_path, task):
    photos, out = tmp_path / 'photos', tmp_path / 'out'
    shutil.copytree(folder, photos)
    shutil.copy(video, photos)
    (photos / '._a.jpg').write_bytes(b'what macOS leaves')
    (photos / 'a2.png').write_bytes((folder / 'a.png').read_bytes()[:50])
    (photos / 'torn.mp4').write_bytes(b'no video')
    (photos / 'empty.jpg').touch()
    strange = os.fsdecode(b'\xff')  # no UTF-8, of which OpenCV dies
    shutil.copy(folder / 'b.png', photos / f'{strange}.png')
    shutil.copy(video, photos / f'{strange}.avi')
    (photos / f'{strange}.avi').rename(photos / f'{strange}2.avi')
    report = predict(*runs[task], [photos], out, 'cpu', 2, progress=False)
    names = [Path(entry['input']).name for entry in report['failures']]
    assert names == ['a2.png', 'empty.jpg', 'torn.mp4', f'{strange}2.avi']
    assert all('cannot be read' in f['error'] for f in report['failures'])
    names = [Path(record['input']).name for record in report['inputs']]
    assert names == ['a.png', 'b.png', 'ride.avi', 'a.bmp', f'{strange}.png']
    assert report['images'] == 7
    overlays = out / 'overlay' / f'{strange}.png'
    assert overlays.exists() == (task != 'classification')


def test_small_images_and_long_names_cost_no_others(runs, folder, tmp_path):
    photos, out = tmp_path / 'photos', tmp_path / 'out'
    photos.mkdir()
    for name, size in (('a', (1, 90)), ('b', (64, 96)), ('c', (90, 1))):
        cv2.imwrite(str(photos / f'{name}.png'), draw(1)[: size[0], : size[1]])
    shutil.copy(folder / 'a.png', photos / ('d' * 251 + '.png'))
    report = predict(
        *runs['segmentation'], [photos], out, 'cpu', 2, progress=False
    )
    small = [f['error'].partition(': ')[2] for f in report['failures']]
    assert len(small) == 2
    assert all('too small: a pyramid needs 2×2 patches' in e for e in small)
    names = [Path(record['input']).name for record in report['inputs']]
    assert names == ['b.png', 'd' * 251 + '.png']
    detected = predict(
        *runs['detection'], [photos], out, 'cpu', progress=False
    )
    (failure,) = detected['failures']
    assert 'ddd' in failure['input']
    assert 'File name too long' in failure['error']
    assert len(detected['inputs']) == 3 and (out / 'overlay').exists()


def test_videos_where_names_are_not_utf8(runs, video, folder, tmp_path):
    """OpenCV would end the process."""
    out = tmp_path / os.fsdecode(b'\xff')
    report = predict(
        *runs['segmentation'], [video, folder], out, 'cpu', progress=False
    )
    (failure,) = report['failures']
    assert failure['input'] == str(video) and 'UTF-8' in failure['error']
    assert len(report['inputs']) == 4  # the labels of the video are there
    assert len(list((out / 'labels/ride').iterdir())) == 3
    assert not [p for p in (out / 'overlay').iterdir() if 'ride' in p.name]


def test_a_full_disk_ends_it_and_leaves_the_old(runs, folder, tmp_path):
    forget_runs()  # whose logs, grown by other tests, cannot grow either
    arguments = *runs['segmentation'], [folder], tmp_path, 'cpu'
    predict(*arguments, progress=False)
    old = {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}
    refused = pytest.raises(WriteError, match=r'png.* File too large')
    with full_disk(9000), refused:
        predict(*arguments, opacity=0.1, progress=False)
    now = {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}
    assert now == old


def test_an_image_that_fails_is_left_out(runs, folder, tmp_path, monkeypatch):
    """Alone, not with its batch."""
    whole = Predictor.__call__

    def fails(self, images):
        if any(np.array_equal(image, draw(2)) for image in images):
            raise RuntimeError('too much for me')
        return whole(self, images)

    monkeypatch.setattr(Predictor, '__call__', fails)
    report = predict(
        *runs['classification'], [folder], tmp_path, 'cpu', 9, progress=False
    )
    (failure,) = report['failures']
    assert failure['input'] == str(folder / 'b.png')
    assert failure['error'].endswith(
        'fails with RuntimeError: too much for me'
    )
    assert [r['input'] for r in report['inputs']] == [
        str(folder / 'a.png'),
        str(folder / 'sub' / 'a.bmp'),
    ]


def test_wrong_arguments(runs, folder, tmp_path):
    for arguments, message in (
        (dict(batch_size=0), 'batch_size must be a whole number'),
        (dict(opacity=2), r'opacity must lie in \[0, 1\], but got 2'),
        (dict(device='warp'), "device 'warp' cannot be used"),
    ):
        with pytest.raises(ConfigError, match=message):
            predict(*runs['segmentation'], [folder], tmp_path, **arguments)
    config, checkpoint = runs['segmentation'][0], runs['detection'][1]
    with pytest.raises(CheckpointError, match='of another model'):
        Predictor(config, checkpoint, 'cpu')
    cfg = Config.fromfile(config)
    cfg.default_scope = 'mmpose'
    with pytest.raises(ConfigError, match="but got 'mmpose'"):
        Predictor(cfg, checkpoint, 'cpu')


def run_tool(monkeypatch, *arguments):
    """Run tools/predict.py in this process."""
    path = ROOT / 'tools' / 'predict.py'
    spec = importlib.util.spec_from_file_location('predict_tool', path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(sys, 'argv', ['predict.py', *map(str, arguments)])
    try:
        cli.run(tool.main)
    except SystemExit as stop:
        return stop.code
    return 0


def own_lines(text):
    """What a tool prints, without the log."""
    return [line for line in text.splitlines() if ' - mmengine - ' not in line]


def test_the_tool(runs, folder, tmp_path, monkeypatch, capsys):
    names = tmp_path / 'names.txt'
    names.write_text('\n'.join(f'digit {i}' for i in range(10)))
    arguments = [*runs['classification'], folder, '--out', tmp_path]
    more = ['--classes', names, '--json', tmp_path / 'r.json', '--no-progress']
    assert run_tool(monkeypatch, *arguments, *more, '--topk', 1) == 0
    lines = own_lines(capsys.readouterr().out)
    assert lines[0].startswith('classification of 3 images in')
    report = json.loads((tmp_path / 'r.json').read_text())
    top = report['inputs'][0]['top']
    assert len(top) == 1 and top[0]['class'] in lines[1]
    (tmp_path / 'torn.png').write_bytes(b'')
    arguments.insert(2, tmp_path / 'torn.png')
    assert run_tool(monkeypatch, *arguments) == 1
    printed = capsys.readouterr()
    assert len(own_lines(printed.out)) == 4
    torn, failed = printed.err.splitlines()[-2:]
    assert "torn.png' cannot be read" in torn and '1 inputs failed' in failed
    assert run_tool(monkeypatch, *arguments[:2], 'none', '--out', 'x') == 1
    assert "error: input 'none' not found" in capsys.readouterr().err
    assert run_tool(monkeypatch, *arguments, '--tpok', 3) == 2
