"""Files for each runtime, run there and compared with PyTorch."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from torch import nn

from mmvitcompress.deploy import DeployedNetwork, GraphSpec
from mmvitcompress.deploy.targets import TARGETS, graph_error
from mmvitcompress.deploy.targets.base import TOLERANCE
from mmvitcompress.deploy.targets.memory import process_memory_mb
from mmvitcompress.errors import ConfigError, DependencyError, RunError
from mmvitcompress.models import CompressedViT

pytestmark = pytest.mark.slow

ARCH = dict(
    embed_dim=12,
    depth=2,
    num_heads=2,
    patch_size=4,
    img_size=32,
    qk_dims=(4, 2),
    v_dims=(2, 6),
    mlp_dims=(8, 20),
)
SHAPE = (16, 24)
RUN = 'torch', 'onnx', 'openvino'


def needed(name):
    """A target, if its packages are there."""
    for package in TARGETS[name].packages:
        pytest.importorskip(package)
    return TARGETS[name]


def network(**spec):
    torch.manual_seed(0)
    model = CompressedViT(
        ARCH, token_merging=dict(layers=(1,)), out_indices=[1]
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    spec = GraphSpec(**{'shape': SHAPE, **spec})
    return DeployedNetwork(model, 'encoder', spec)


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """A function from a target's name to a network and the file of it, each
    written once."""
    files = {}

    def write(name):
        target = needed(name)
        if name not in files:
            made, images = network(), torch.randn(5, 3, *SHAPE)
            path = tmp_path_factory.mktemp(name) / f'net{target.suffix}'
            assert 0 <= target.write(made, path, [images]) <= TOLERANCE
            files[name] = made, path
        return files[name]

    return write


@pytest.mark.parametrize('name', TARGETS)
def test_files_equal_pytorch(name, written):
    made, path = written(name)
    assert path.is_file()
    if not TARGETS[name].runs_here():
        return
    graph, images = TARGETS[name].load(path), torch.randn(5, 3, *SHAPE)
    found, expected = graph(images), made(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    # results stay when the graph is run again
    before = [each.clone() for each in found]
    graph(-images)
    assert all(map(torch.equal, found, before))
    with pytest.raises(ConfigError, match='16×24, but got 32×32'):
        graph(torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize('name', RUN)
def test_fixed_and_free_sizes(name, tmp_path):
    target = needed(name)
    made = network(dynamic='none', batch_size=2)
    path = tmp_path / f'fixed{target.suffix}'
    target.write(made, path)
    graph = target.load(path)
    images = torch.randn(4, 3, *SHAPE)
    expected = [made(half) for half in images.split(2)]
    expected = tuple(map(torch.cat, zip(*expected)))
    torch.testing.assert_close(graph(images), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match='does not divide 3'):
        graph(images[:3])
    made = network(dynamic='size')
    path = tmp_path / f'free{target.suffix}'
    target.write(made, path)
    graph = target.load(path)
    for shape in ((32, 32), (8, 48)):
        images = torch.randn(3, 3, *shape)
        torch.testing.assert_close(
            graph(images), made(images), rtol=1e-4, atol=1e-5
        )
    with pytest.raises(ConfigError, match='multiples of 4 and 8'):
        graph(torch.randn(1, 3, 16, 20))


@pytest.mark.parametrize('name', RUN)
def test_a_wrong_graph_leaves_the_file_that_was_there(
    name, tmp_path, monkeypatch
):
    target = needed(name)
    path = tmp_path / f'net{target.suffix}'
    path.write_bytes(b'old')
    made = network()
    # what is written is another network than the one it is compared with
    right = made.forward
    monkeypatch.setattr(
        'mmvitcompress.deploy.targets.base._probes', lambda _: [made.example()]
    )
    calls = []

    def changing(images):
        calls.append(images)
        scale = 1.1 if isinstance(images, torch._subclasses.FakeTensor) else 1
        return tuple(scale * each for each in right(images))

    made.forward = changing
    with pytest.raises(ConfigError, match=r'differs from PyTorch by 0\.'):
        target.write(made, path)
    assert calls and path.read_bytes() == b'old'
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_nan_is_no_small_error():
    made = network()

    def broken(images):
        return tuple(torch.full_like(each, torch.nan) for each in made(images))

    assert not graph_error(made, broken) <= TOLERANCE
    assert graph_error(made, made) == 0


def test_bfloat16_is_near_but_not_equal(written):
    for name in ('torch', 'openvino'):
        if name == 'openvino' and not has_bfloat16():
            continue
        made, path = written(name)
        images = torch.randn(2, 3, *SHAPE)
        (found,) = TARGETS[name].load(path, 'bf16')(images)
        (expected,) = made(images)
        assert found.dtype == torch.float32
        error = (found - expected).abs().max() / expected.abs().max()
        assert 1e-4 < error < 0.1


def has_bfloat16():
    openvino = pytest.importorskip('openvino')
    options = openvino.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
    return 'BF16' in options


@pytest.mark.parametrize('name', ['onnx', 'openvino', 'tensorrt'])
def test_int8_is_smaller_and_near(name, written, tmp_path):
    target = needed(name)
    if name == 'openvino':
        pytest.importorskip('nncf')
    made, path = written(name)
    folder = shutil.copytree(path.parent, tmp_path / 'files')
    path, out = folder / path.name, folder / f'int8{target.suffix}'
    images = [torch.randn(1, 3, *SHAPE) for _ in range(8)]
    target.quantize(path, out, images)
    with pytest.raises(ConfigError, match='images to calibrate on'):
        target.quantize(path, folder / 'none', [])
    if name == 'tensorrt':
        lines = (folder / 'net.trtexec.sh').read_text().splitlines()
        assert '--onnx=int8.trt.onnx' in lines[-1] and '--int8' in lines[-1]
        assert '--optShapes=images:8x3x16x24' in lines[-1]
    # TensorRT's file runs under onnxruntime as well
    load = TARGETS['onnx' if name == 'tensorrt' else name].load
    graph = load(out, 'int8')
    assert graph.input_shape[1:] == [3, *SHAPE]
    (found,), (expected,) = graph(images[0]), made(images[0])
    error = (found - expected).norm() / expected.norm()
    assert 1e-4 < error < 0.3


def test_precisions_that_are_missing_are_refused_with_a_reason(tmp_path):
    for name, precision, word in (
        ('torch', 'int8', 'take the target onnx or openvino'),
        ('onnx', 'bf16', 'take the target openvino'),
    ):
        target = TARGETS[name]
        assert precision not in target.precisions
        assert word in target.refusal(precision)
    with pytest.raises(ConfigError, match='torch has no int8'):
        TARGETS['torch'].quantize('x.pt2', tmp_path / 'y.pt2', [])


@pytest.mark.parametrize('name, package', [('openvino',) * 2, ('onnx',) * 2])
def test_a_missing_package_is_named(name, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    remedy = f'^{package}, which .*pip install -r requirements/'
    with pytest.raises(DependencyError, match=remedy):
        TARGETS[name].write(network(), tmp_path / 'x')


def test_memory_of_a_process(written):
    _, path = written('torch')
    size = (64, 3, *SHAPE)
    peak = process_memory_mb('torch', path, 'float32', size, 1)
    assert peak is None or 0.1 < peak < 2000
    if peak is not None:
        with pytest.raises(RunError, match='leave --memory out'):
            process_memory_mb('torch', path, 'float32', (1, 3, 8, 8), 1)


def trt_file(tmp_path, nodes, constants=(), inputs=()):
    onnx = pytest.importorskip('onnx')
    tensors = [onnx.numpy_helper.from_array(v, n) for n, v in constants]
    graph = onnx.helper.make_graph(nodes, 'g', inputs, [], tensors)
    path = tmp_path / 'g.onnx'
    onnx.save(onnx.helper.make_model(graph), path)
    return path


def test_what_tensorrt_refuses_is_found(tmp_path):
    onnx = pytest.importorskip('onnx')
    from mmvitcompress.deploy.targets.tensorrt import objections

    node = onnx.helper.make_node
    nodes = [
        node('Unique', ['x'], ['a']),
        node('TopK', ['x', 'k'], ['b', 'c'], name='top'),
        node('Resize', ['x', '', 's'], ['d'], name='small', antialias=1),
    ]
    constants = [
        ('k', np.array([5000])),
        ('s', np.array([0.5], np.float64)),
        ('far', np.array([2**40])),
        ('end', np.array([2**63 - 1, -3])),
    ]
    found = [*objections(trt_file(tmp_path, nodes, constants))]
    assert found == [
        'it has no Unique',
        's is of float64',
        'far does not fit into 32 bits',
        'top takes more than 3840 of a row',
        'small resizes with antialiasing',
    ]
    harmless = [node('TopK', ['x', 'k'], ['b', 'c'])]
    path = trt_file(tmp_path, harmless, [('k', np.array([7]))])
    assert not [*objections(path)]


def test_trtexec_gets_a_command(written, tmp_path):
    _, path = written('tensorrt')
    script = (path.parent / 'net.trtexec.sh').read_text()
    commands = [x for x in script.splitlines() if x.startswith('trtexec')]
    assert len(commands) == 2
    for line, precision in zip(commands, ('noTF32', 'bf16')):
        assert '--onnx=net.trt.onnx' in line and f'--{precision}' in line
        for kind, count in (('min', 1), ('opt', 8), ('max', 32)):
            assert f'--{kind}Shapes=images:{count}x3x16x24' in line
    path = tmp_path / 'net.trt.onnx'
    TARGETS['tensorrt'].write(network(dynamic='none'), path)
    assert 'Shapes' not in (tmp_path / 'net.trtexec.sh').read_text()


def test_files_tell_what_they_take(tmp_path):
    made = network(dynamic='size')
    path = tmp_path / 'net.pt2'
    TARGETS['torch'].write(made, path)
    extra = {'mmvitcompress.json': ''}
    torch.export.load(path, extra_files=extra)
    told = json.loads(extra['mmvitcompress.json'])
    assert told['shape'] == [*SHAPE] and told['size_step'] == [4, 8]
    assert told['arch'] == made.backbone.arch.to_dict()


def test_what_tensorrt_refuses_leaves_the_file_that_was_there(
    tmp_path, monkeypatch
):
    from mmvitcompress.deploy.targets import tensorrt

    target, path = needed('tensorrt'), tmp_path / 'net.trt.onnx'
    path.write_text('before')
    monkeypatch.setattr(tensorrt, 'objections', lambda path: ['it is blue'])
    with pytest.raises(ConfigError, match='it is blue'):
        target.write(network(), path)
    assert path.read_text() == 'before'
    assert [p.name for p in tmp_path.iterdir()] == ['net.trt.onnx']
