"""tools/visualize.py: every kind of picture, on tiny models."""

import base64
import io
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from disks import full_disk
from PIL import Image

from mmvitcompress.errors import DependencyError
from mmvitcompress.visualization import FIGURES
from mmvitcompress.visualization.loading import (
    load_images,
    load_model,
    to_pictures,
)

pytestmark = pytest.mark.slow

CAIT = dict(token_merging=dict(layers=(2, 3)))
SLIM = dict(patch_slimming=dict(base_layer=2, layers=(2, 3), keep_rate=0.5))


def opened(path):
    return np.array(Image.open(path).convert('RGB'))


def test_merges_with_and_without_weights(visualize, classifier, tmp_path):
    config, checkpoint = classifier('atme', **CAIT)
    out, page = tmp_path / 'new' / 'merges.png', tmp_path / 'merges.html'
    status, stdout, _ = visualize(
        *('merges', config, checkpoint, '--out', out, '--html', page),
        *('--count', 2),
    )
    assert status == 0
    assert str(out) in stdout
    assert opened(out).std() > 10
    text = page.read_text()
    pictures = re.findall(r'src="([^"]+)"', text)
    assert len(pictures) == 2  # one for each image
    for picture in pictures:
        head, _, data = picture.partition(',')
        assert head == 'data:image/png;base64'
        Image.open(io.BytesIO(base64.b64decode(data))).verify()
    assert 'share one token' in text
    assert f'merges {config}' in text
    status, _, stderr = visualize('merges', config, '--out', out)
    assert status == 0, stderr


def test_images_are_those_that_the_network_gets(segmentor, scenes, tmp_path):
    # no square of crop_size, as the config's test pipeline resizes nothing
    merging = dict(token_merging=dict(layers=(2,)))
    config, checkpoint = segmentor('both', **merging, **SLIM)
    cfg, model = load_model(config, checkpoint)
    (image, *_), folder = load_images(cfg, model), tmp_path / 'photos'
    assert image.shape == (3, 32, 40)
    folder.mkdir()
    shutil.copy(scenes / 'images' / '0.png', folder / 'a.png')
    Image.new('RGB', (24, 56), 'red').save(folder / 'b.png')
    first, second = load_images(cfg, model, str(folder))
    assert torch.equal(first, image)
    assert second.shape == (3, 56, 24)
    picture, red = to_pictures([first, second], model, cfg)
    assert np.array_equal(picture, opened(folder / 'a.png'))
    assert red[0, 0].tolist() == [255, 0, 0]
    # not repeated, and of its own size
    (small,) = load_images(cfg, model, str(folder / 'b.png'), shape=[16, 24])
    assert small.shape == (3, 16, 24)
    for kind in ('merges', 'life', 'attention', 'features'):
        view = FIGURES[kind].view(config, checkpoint, images=str(folder))
        assert view.rows == 2  # of their own sizes
        heights = [axis.get_ylim()[0] for axis in view.whole().axes]
        assert {32, 56} <= set(heights)


def test_life(visualize, classifier, tmp_path):
    config, checkpoint = classifier('slim', soft_slimming=True, **SLIM)
    out = tmp_path / 'life.png'
    assert visualize('life', config, checkpoint, '--out', out)[0] == 0
    assert opened(out).std() > 10


def test_channels(visualize, classifier, tmp_path):
    _, pruning = classifier('cdcp', compactors=True)
    _, plain = classifier('plain')
    out, figures = tmp_path / 'channels.png', tmp_path / 'channels.json'
    words = ('--names', 'A', 'B', '--out', out, '--json', figures)
    assert visualize('channels', pruning, plain, *words)[0] == 0
    content = json.loads(figures.read_text())
    assert content['A']['kept'] == content['B']['dense'] == [[8, 8, 96]] * 4
    words = ('--by', 'head', '--out', out, '--json', figures)
    assert visualize('channels', pruning, *words)[0] == 0
    content = json.loads(figures.read_text())['cdcp.pth']
    assert content['v'] == dict(kept=96, stuck=0, removed=0)
    status, _, stderr = visualize('channels', plain, *words)
    assert (status, stderr.count('\n')) == (1, 1)
    assert 'no compactors' in stderr


@pytest.mark.parametrize('kind', ['attention', 'features'])
def test_dense_beside_compressed(visualize, classifier, tmp_path, kind):
    pair = classifier('cait', compactors=True, **CAIT)
    dense = classifier('dense')
    out = tmp_path / 'both.png'
    words = (*pair, '--dense', *dense, '--out', out, '--count', 2)
    more = ('--head', 1) if kind == 'attention' else ('--blocks', 2, 4)
    status, _, stderr = visualize(kind, *words, *more)
    assert status == 0, stderr
    wide = opened(out).shape[1]
    alone = tmp_path / 'alone.png'
    assert visualize(kind, *pair, '--out', alone, '--count', 2)[0] == 0
    if kind == 'attention':
        assert opened(alone).shape[1] < wide


def test_other_sizes_beside_each_other_are_refused(
    visualize, classifier, tmp_path
):
    pair = classifier('cait', **CAIT)
    config, checkpoint = classifier('dense')
    text = Path(config).read_text()
    Path(config).write_text(text.replace('input_size=32', 'input_size=40'))
    status, _, stderr = visualize(
        *('features', *pair, '--dense', config, checkpoint),
        *('--out', tmp_path / 'x.png'),
    )
    assert status == 1
    assert 'give one by --shape' in stderr


def test_compare(visualize, segmentor, classifier, tmp_path):
    pair, dense = segmentor('cait', **CAIT), segmentor('dense')
    out, figures = tmp_path / 'compare.png', tmp_path / 'compare.json'
    words = ('--out', out, '--json', figures, '--show', 2)
    status, _, stderr = visualize('compare', *pair, '--dense', *dense, *words)
    assert status == 0, stderr
    assert opened(out).std() > 10
    content = json.loads(figures.read_text())
    assert content['images'] == 3
    assert list(content['models']) == ['dense', 'compressed']
    assert set(content['models']['dense']['IoU']) == {'wall', 'sky', 'tree'}

    # a model beside itself has the same figures
    visualize('compare', *pair, '--dense', *pair, *words)
    models = json.loads(figures.read_text())['models']
    assert models['dense'] == models['compressed']

    status, _, stderr = visualize(
        'compare', *classifier('cls'), '--dense', *dense, *words
    )
    assert status == 1
    assert 'give one of mmseg' in stderr


def test_compare_needs_heads_with_weights(visualize, segmentor, tmp_path):
    config, checkpoint = segmentor('cait', **CAIT)
    content = torch.load(checkpoint, weights_only=True)
    state = content['state_dict']
    backbone = {
        name.removeprefix('backbone.'): value
        for name, value in state.items()
        if name.startswith('backbone.')
    }
    path = tmp_path / 'backbone.pth'
    torch.save({'state_dict': backbone, 'meta': content['meta']}, path)
    status, _, stderr = visualize(
        *('compare', config, path, '--dense', config, checkpoint)
    )
    assert status == 1
    assert 'holds a backbone only' in stderr


def test_curve(visualize, tmp_path):
    results = tmp_path / 'results.json'
    results.write_text('[{"name": "a", "quality": 60, "macs": 1e9}]')
    out = tmp_path / 'curve.svg'
    assert visualize('curve', results, '--out', out)[0] == 0
    assert '<svg' in out.read_text()
    status, _, stderr = visualize('curve', '--benchmark', results)
    assert status == 1
    assert '--benchmark and --metrics need each other' in stderr


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--out', 'a.docx'), '*.png or another of'),
        (('--out', 'a.png', '--html', 'a.pdf'), 'must be named *.html'),
    ],
)
def test_names_of_files_are_checked_first(visualize, words, message):
    status, _, stderr = visualize('curve', 'none.json', *words)
    assert status == 1
    assert message in stderr


def test_a_full_disk_leaves_what_was_there(visualize, tmp_path):
    results, out = tmp_path / 'results.json', tmp_path / 'curve.png'
    results.write_text('[{"name": "a", "quality": 60, "macs": 1e9}]')
    out.write_bytes(b'old')
    page = tmp_path / 'curve.html'
    for words in (('--out', out), ('--out', out, '--html', page)):
        with full_disk(5000):
            status, _, stderr = visualize('curve', results, *words)
        assert (status, stderr.count('\n')) == (1, 1)
        assert 'cannot be written' in stderr
    assert out.read_bytes() == b'old'
    assert {f.name for f in tmp_path.iterdir()} == {results.name, out.name}


def test_unknown_words_are_refused(visualize):
    status, _, stderr = visualize('curve', 'none.json', '--colour', 'red')
    assert status == 2
    assert 'unrecognized arguments' in stderr
    assert visualize('paint')[0] == 2


def test_without_matplotlib_the_error_tells_the_remedy(monkeypatch):
    for name in list(sys.modules):
        if name.startswith('mmvitcompress.visualization'):
            monkeypatch.delitem(sys.modules, name)
        if name.startswith('matplotlib'):
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DependencyError, match='pip install matplotlib'):
        import mmvitcompress.visualization  # noqa: F401
