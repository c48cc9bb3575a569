import hashlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from dataset_converters import digits as module
from dataset_converters.digits import (
    DigitsSpec,
    load_glyphs,
    make_digits,
    split_digits,
)
from PIL import Image
from pycocotools.coco import COCO
from torchvision.datasets import ImageFolder

from mmvitcompress.errors import ConfigError, DataError

TOOL = Path(__file__).parents[3] / 'tools/make_digits.py'
SPLITS = {'train': 'training', 'val': 'validation'}


def tree_hash(root):
    digest = hashlib.sha256()
    for path in sorted(root.rglob('*')):
        digest.update(str(path.relative_to(root)).encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def read_json(root, split):
    name = f'instances_{SPLITS[split]}.json'
    return json.loads((root / 'scenes/annotations' / name).read_text())


def label_map(root, split, file_name):
    folder = root / 'scenes/annotations' / SPLITS[split]
    return np.asarray(Image.open(folder / file_name))


@pytest.fixture
def run_tool(monkeypatch, capsys):
    """Run the tool as a command line would; exit status and both outputs."""

    def run(*args):
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, args)])
        status = 0
        try:
            runpy.run_path(str(TOOL), run_name='__main__')
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    handler = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def few_digits(monkeypatch):
    """Only the first 100 digits, where their number does not matter."""
    glyphs, digits = load_glyphs()
    monkeypatch.setattr(
        module, 'load_glyphs', lambda: (glyphs[:100], digits[:100])
    )


def test_same_arguments_give_the_same_bytes(digits_root, tmp_path):
    make_digits(tmp_path / 'again', scenes=16, size=96, seed=3)
    assert tree_hash(tmp_path / 'again') == tree_hash(digits_root)


def test_other_seed_gives_other_scenes(few_digits, tmp_path):
    for seed in (0, 1):
        make_digits(tmp_path / str(seed), scenes=4, size=64, seed=seed)
    assert tree_hash(tmp_path / '0') != tree_hash(tmp_path / '1')


def test_more_scenes_keep_the_first_ones(few_digits, tmp_path):
    for scenes in (4, 8):
        make_digits(tmp_path / str(scenes), scenes=scenes, size=64)
    for path in (tmp_path / '4/scenes/images/training').iterdir():
        twin = tmp_path / '8/scenes/images/training' / path.name
        assert path.read_bytes() == twin.read_bytes()


def test_all_real_digits_are_there_once_in_their_classes(digits_root):
    seen = {}
    for path in (digits_root / 'classification').glob('*/*/*.png'):
        seen[int(path.stem)] = int(path.parent.name)
    _, digits = load_glyphs()
    assert seen == dict(enumerate(digits.tolist()))
    assert len(seen) == 1797


def test_thumbnails_show_their_digits(digits_root):
    glyphs, digits = load_glyphs()
    for source in (0, 700, 1796):
        name = f'*/{digits[source]}/{source:04d}.png'
        path = next((digits_root / 'classification').glob(name))
        image = Image.open(path)
        assert image.mode == 'RGB' and image.size == (32, 32)
        grey = np.asarray(image)[..., 0].reshape(8, 4, 8, 4).mean((1, 3))
        correlation = np.corrcoef(grey.ravel(), glyphs[source].ravel())[0, 1]
        assert correlation > 0.95


def test_torchvision_reads_the_classification_folders(digits_root):
    sizes = {}
    for split in SPLITS:
        folder = ImageFolder(digits_root / 'classification' / split)
        assert folder.classes == list('0123456789')
        assert np.bincount(folder.targets).min() > 20
        sizes[split] = len(folder)
    assert sum(sizes.values()) == 1797
    assert sizes['val'] == pytest.approx(0.2 * 1797, abs=5)


def test_validation_shows_only_held_out_digits(digits_root):
    folder = digits_root / 'classification'
    files = {
        split: {int(path.stem) for path in (folder / split).glob('*/*.png')}
        for split in SPLITS
    }
    assert not files['train'] & files['val']
    for split in SPLITS:
        content = read_json(digits_root, split)
        used = {one['source'] for one in content['annotations']}
        assert used and used <= files[split]


def test_split_is_stratified_and_follows_the_seed():
    _, digits = load_glyphs()
    split = split_digits(digits, 0)
    both = np.sort(np.concatenate([split['train'], split['val']]))
    assert (both == np.arange(1797)).all()
    share = np.bincount(digits[split['val']]) / np.bincount(digits)
    assert share == pytest.approx(0.2, abs=0.005)
    assert (split_digits(digits, 0)['val'] == split['val']).all()
    assert set(split_digits(digits, 1)['val']) != set(split['val'])


@pytest.mark.parametrize('split', SPLITS)
def test_semantic_maps_and_instances_agree(digits_root, split):
    content = read_json(digits_root, split)
    coco = COCO()
    coco.dataset = content
    coco.createIndex()
    _, digits = load_glyphs()
    assert len(content['images']) == {'train': 16, 'val': 4}[split]
    for image in content['images']:
        union = np.zeros((96, 96), int)
        for one in coco.imgToAnns[image['id']]:
            mask = coco.annToMask(one)
            assert one['area'] == mask.sum() > 0
            assert one['iscrowd'] == 0
            assert one['category_id'] == digits[one['source']] + 1
            union += mask * one['category_id']
        found = label_map(digits_root, split, image['file_name'])
        assert (found == union).all()
        path = digits_root / 'scenes/images' / SPLITS[split]
        with Image.open(path / image['file_name']) as picture:
            assert picture.size == (image['width'], image['height'])
            assert picture.mode == 'RGB'


def test_pycocotools_opens_the_json(digits_root, capsys):
    path = digits_root / 'scenes/annotations/instances_training.json'
    coco = COCO(path)
    names = [category['name'] for category in coco.loadCats(coco.getCatIds())]
    assert names == list('0123456789')
    assert coco.getCatIds() == list(range(1, 11))
    ids = [one['id'] for one in coco.dataset['annotations']]
    assert ids == list(range(1, len(ids) + 1))


def test_finished_tree_is_left_alone(few_digits, tmp_path):
    out = tmp_path / 'tree'
    assert make_digits(out, scenes=4, size=64)
    times = {path: path.stat().st_mtime_ns for path in out.rglob('*')}
    assert not make_digits(out, scenes=4, size=64)
    assert times == {path: path.stat().st_mtime_ns for path in out.rglob('*')}
    assert oct(out.stat().st_mode) == oct((out / 'scenes').stat().st_mode)


def test_other_tree_is_replaced_only_when_told(few_digits, tmp_path):
    out = tmp_path / 'tree'
    make_digits(out, scenes=4, size=64)
    before = tree_hash(out)
    with pytest.raises(DataError, match=r"'seed': 0.*--overwrite"):
        make_digits(out, scenes=4, size=64, seed=1)
    assert tree_hash(out) == before
    assert make_digits(out, scenes=4, size=64, seed=1, overwrite=True)
    assert json.loads((out / 'digits.json').read_text())['seed'] == 1
    assert [path.name for path in tmp_path.iterdir()] == ['tree']


def test_damaged_tree_is_noticed_and_mended(few_digits, tmp_path):
    out = tmp_path / 'tree'
    make_digits(out, scenes=4, size=64)
    before = tree_hash(out)
    (out / 'scenes/images/training/00002.png').unlink()
    with pytest.raises(DataError, match='has lost files'):
        make_digits(out, scenes=4, size=64)
    make_digits(out, scenes=4, size=64, overwrite=True)
    assert tree_hash(out) == before


@pytest.mark.parametrize('content', [None, '{"version": 1}', '[]', 'no json'])
def test_foreign_folders_are_never_replaced(few_digits, tmp_path, content):
    (tmp_path / 'thesis.tex').write_text('years of work')
    if content is not None:
        (tmp_path / 'digits.json').write_text(content)
    with pytest.raises(DataError, match='not made by this tool'):
        make_digits(tmp_path, overwrite=True)
    assert (tmp_path / 'thesis.tex').read_text() == 'years of work'


def test_files_are_never_replaced(tmp_path):
    (tmp_path / 'out').write_text('mine')
    with pytest.raises(DataError, match='not made by this tool'):
        make_digits(tmp_path / 'out', overwrite=True)


def test_empty_folders_are_filled(few_digits, tmp_path):
    (tmp_path / 'out').mkdir()
    assert make_digits(tmp_path / 'out', scenes=4, size=64)
    assert (tmp_path / 'out/digits.json').is_file()


@pytest.mark.parametrize('existing', [False, True])
def test_interruption_leaves_no_trace(
    few_digits, tmp_path, monkeypatch, existing
):
    out = tmp_path / 'tree'
    if existing:
        make_digits(out, scenes=4, size=64)
    before = tree_hash(tmp_path)
    calls = []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args)

    original = module.make_scene
    monkeypatch.setattr(module, 'make_scene', interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_digits(out, scenes=8, size=64, overwrite=True)
    assert len(calls) == 3
    assert tree_hash(tmp_path) == before


def test_unwritable_place_is_the_users_mistake(few_digits, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(DataError, match=r'cannot make .*file/out'):
        make_digits(tmp_path / 'file' / 'out')


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (dict(scenes=3), 'scenes must be 4 or more, but got 3'),
        (dict(size=32), r'size must lie in 64\.\.1024 pixels, but got 32'),
        (dict(seed=-1), r'seed must lie in 0\.\.2\*\*32 - 1, but got -1'),
    ],
)
def test_wrong_arguments_are_named(wrong, message):
    with pytest.raises(ConfigError, match=message):
        DigitsSpec(**wrong)


def test_tool_makes_then_recognises_a_tree(few_digits, tmp_path, run_tool):
    args = ('--out', tmp_path / 'tree', '--scenes', 4, '--size', 64)
    status, out, err = run_tool(*args)
    assert (status, err) == (0, '')
    assert 'made 4 training scenes, 1 validation scenes' in out
    assert (tmp_path / 'tree/scenes/images/validation/00000.png').is_file()
    status, out, err = run_tool(*args)
    assert (status, err) == (0, '')
    assert 'nothing to do' in out


def test_tool_refuses_on_one_line(digits_root, run_tool):
    status, out, err = run_tool('--out', digits_root)
    assert (status, out) == (1, '')
    assert err.count('\n') == 1
    assert err.startswith('make_digits.py: error:') and '--overwrite' in err


def test_tool_refuses_unknown_arguments(run_tool):
    status, _, err = run_tool('--scene', '4')
    assert status == 2
    assert 'unrecognized arguments: --scene 4' in err


@pytest.mark.slow
def test_terminated_tool_leaves_no_trace(tmp_path):
    process = subprocess.Popen(
        [sys.executable, TOOL, '--out', tmp_path / 'tree'],
        env={**os.environ, 'PYTHONPATH': str(TOOL.parents[1])},
    )
    try:
        deadline = time.monotonic() + 60
        while not any(tmp_path.glob('.tree-*/new/*')):
            assert time.monotonic() < deadline, 'the tool has not begun'
            time.sleep(0.02)
        process.terminate()
        assert process.wait(timeout=30) == 143
    finally:
        process.kill()
    assert not any(tmp_path.iterdir())
