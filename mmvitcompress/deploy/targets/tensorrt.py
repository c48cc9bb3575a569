"""What TensorRT takes: an ONNX file, checked, and trtexec's command for it."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from shlex import join

import numpy as np

from mmvitcompress.deploy.network import DeployedNetwork
from mmvitcompress.deploy.targets.base import Graph
from mmvitcompress.deploy.targets.onnx_file import OnnxTarget
from mmvitcompress.deploy.targets.onnx_int8 import quantize_int8
from mmvitcompress.deploy.targets.onnx_runtime import OnnxNetwork
from mmvitcompress.errors import ConfigError
from mmvitcompress.utils.files import replacing, write_atomically

PROVIDER = 'TensorrtExecutionProvider'
MAX_TOPK = 3840
"""The largest K that TensorRT's TopK takes."""
_REFUSED = """
    BitShift Compress ConcatFromSequence ConvInteger Det DynamicQuantizeLinear
    MatMulInteger MaxRoiPool MaxUnpool Multinomial NegativeLogLikelihoodLoss
    Optional QLinearConv QLinearMatMul SequenceAt SequenceConstruct
    SequenceEmpty SequenceErase SequenceInsert SequenceLength
    SoftmaxCrossEntropyLoss SplitToSequence StringNormalizer TfIdfVectorizer
    Unique
"""
UNSUPPORTED = frozenset(_REFUSED.split())
"""Operators of ONNX that onnx-tensorrt's support matrix says no to."""
FLAGS = {'float32': ['--noTF32'], 'bf16': ['--bf16'], 'int8': ['--int8']}
EXAMPLES = 1, 8, 32
"""Least, usual and most images that an engine of any batch is made for."""


class TensorRTTarget(OnnxTarget):
    """ONNX files for ``trtexec``, in a file beside them the command.

    They are compared with PyTorch under onnxruntime, and searched for what
    TensorRT is known to refuse. They are run by TensorRT itself where
    onnxruntime has it (onnxruntime-gpu and a GPU).
    """

    name = 'tensorrt'
    suffix = '.trt.onnx'
    precisions = ('float32', 'bf16', 'int8')

    def write(self, network, path, images=(), **options) -> float:
        """Write an ONNX file and, beside it, ``*.trtexec.sh``.

        Raises:
            ConfigError: If the file holds what TensorRT does not take.
        """
        with replacing(path) as part:
            error = super().write(network, part, images, **options)
            _check(part)
        write_script(path, network, ['float32', 'bf16'])
        return error

    def quantize(self, path, out, batches) -> None:
        """As for onnxruntime, but symmetric, which is all TensorRT takes."""
        with replacing(out) as part:
            quantize_int8(path, part, batches, symmetric=True)
            _check(part)
        _add_int8(Path(path), Path(out))

    def runs_here(self) -> bool:
        """Whether onnxruntime has TensorRT."""
        self.require()
        import onnxruntime

        return PROVIDER in onnxruntime.get_available_providers()

    def load(self, path, precision='float32') -> Graph:
        """A graph that TensorRT runs, its engine made in the first run."""
        options = {'trt_bf16_enable': precision == 'bf16'}
        options['trt_int8_enable'] = precision == 'int8'
        return OnnxNetwork(path, [(PROVIDER, options)])


def command(
    path: str | Path, network: DeployedNetwork, precision: str = 'float32'
) -> str:
    """The trtexec command that makes and times an engine of a file."""
    spec, path = network.spec, Path(path)
    stem = path.name.removesuffix(TensorRTTarget.suffix)
    words = ['trtexec', f'--onnx={path.name}']
    words.append(f'--saveEngine={stem}.{precision}.engine')
    if spec.dynamic != 'none':
        size = 'x'.join(map(str, network.example(1).shape[1:]))
        words += [
            f'--{kind}Shapes=images:{count}x{size}'
            for kind, count in zip(('min', 'opt', 'max'), EXAMPLES)
        ]
    return join([*words, *FLAGS[precision]])


def write_script(
    path: str | Path, network: DeployedNetwork, precisions: Iterable[str]
) -> Path:
    """Write the commands of a file beside it, as a script for sh.

    An engine of dynamic size is made for the one it was traced with; other
    numbers in ``--minShapes`` and ``--maxShapes`` widen it.
    """
    path = Path(path)
    script = _script_of(path)
    lines = ['#!/bin/sh', 'cd "$(dirname "$0")" || exit']
    lines += [command(path, network, precision) for precision in precisions]
    write_atomically(script, '\n'.join([*lines, '']))
    return script


def _add_int8(path: Path, out: Path) -> None:
    """Write the command of an INT8 file into the script of the float one."""
    script = _script_of(path)
    (line,) = (
        line
        for line in script.read_text().splitlines()
        if FLAGS['float32'][0] in line
    )
    for old, new in (
        (f'--onnx={path.name}', f'--onnx={out.name}'),
        ('float32.engine', 'int8.engine'),
        (FLAGS['float32'][0], FLAGS['int8'][0]),
    ):
        line = line.replace(old, new)
    write_atomically(script, f'{script.read_text()}{line}\n')


def _script_of(path: Path) -> Path:
    stem = path.name.removesuffix(TensorRTTarget.suffix)
    return path.with_name(f'{stem}.trtexec.sh')


def _check(path: str | Path) -> None:
    found = [*objections(path)]
    if found:
        raise ConfigError(
            f'TensorRT does not take {path}: {"; ".join(found)}; use '
            '--target onnx, or --part encoder'
        )


def objections(path: str | Path) -> Iterator[str]:
    """What TensorRT is known to refuse in an ONNX file, in words."""
    import onnx

    graph = onnx.load(path).graph
    constants = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in graph.initializer
    }
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == 'Constant' and attribute.name == 'value':
                value = onnx.numpy_helper.to_array(attribute.t)
                constants[node.output[0]] = value
    kinds = {node.op_type for node in graph.node}
    if refused := sorted(kinds & UNSUPPORTED):
        yield f'it has no {", ".join(refused)}'
    for name, value in constants.items():
        if value.dtype == np.float64:
            yield f'{name} is of float64'
        if value.dtype == np.int64 and not _fits(value):
            yield f'{name} does not fit into 32 bits'
    for node in graph.node:
        if node.op_type == 'TopK':
            count = constants.get(node.input[1])
            if count is not None and count.max() > MAX_TOPK:
                yield f'{node.name} takes more than {MAX_TOPK} of a row'
        options = {a.name: a.i for a in node.attribute}
        if node.op_type == 'Resize' and options.get('antialias'):
            yield f'{node.name} resizes with antialiasing'


def _fits(value: np.ndarray) -> bool:
    """Whether TensorRT's 32 bits hold a value; open ends of slices, the
    largest number there is, are clamped."""
    limits = np.iinfo(np.int64)
    value = value[(value != limits.max) & (value != limits.min)]
    return bool((value == value.astype(np.int32)).all())
