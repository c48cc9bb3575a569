"""What INT8 leaves in float, so that onnxruntime can run the file."""

from itertools import pairwise

import numpy as np
import pytest
import torch

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')

from mmvitcompress.deploy.targets.base import INPUT  # noqa: E402
from mmvitcompress.deploy.targets.onnx_int8 import quantize_int8  # noqa: E402


def write_products(path, weights):
    """images → images @ one weight after the other."""
    names = [INPUT, *(f'y{i}' for i in range(len(weights)))]
    nodes = [
        onnx.helper.make_node('MatMul', [a, f'w{i}'], [b], name=f'product{i}')
        for i, (a, b) in enumerate(pairwise(names))
    ]
    value = onnx.helper.make_tensor_value_info
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        'products',
        [value(INPUT, kind, [1, 5, 8])],
        [value(names[-1], kind, None)],
        [
            onnx.numpy_helper.from_array(w, f'w{i}')
            for i, w in enumerate(weights)
        ],
    )
    opset = [onnx.helper.make_opsetid('', 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)
    onnx.save(model, path)


def test_stacks_of_matrices_stay_in_float(tmp_path):
    rng = np.random.default_rng(0)
    weights = [
        rng.standard_normal(shape).astype(np.float32)
        for shape in ((8, 16), (9, 16, 4))
    ]
    source, out = tmp_path / 'float.onnx', tmp_path / 'int8.onnx'
    write_products(source, weights)
    image = torch.from_numpy(rng.standard_normal((1, 5, 8))).float()
    quantize_int8(source, out, [image])
    kinds = {
        tuple(tensor.dims): tensor.data_type
        for tensor in onnx.load(out).graph.initializer
        if len(tensor.dims) > 1
    }
    assert kinds[8, 16] == onnx.TensorProto.INT8
    assert kinds[9, 16, 4] == onnx.TensorProto.FLOAT
    found, expected = (
        onnxruntime.InferenceSession(str(path)).run(
            None, {INPUT: image.numpy()}
        )[0]
        for path in (out, source)
    )
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
