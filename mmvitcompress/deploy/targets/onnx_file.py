"""A network as an ONNX file, with its batch and sizes left open."""

import logging
import os
import re
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from mmvitcompress.deploy.network import DeployedNetwork, export_program
from mmvitcompress.deploy.targets.base import (
    INPUT,
    METADATA,
    Graph,
    Target,
    check_graph,
    metadata,
)
from mmvitcompress.deploy.targets.onnx_int8 import quantize_int8
from mmvitcompress.deploy.targets.onnx_runtime import (
    ONNX_PACKAGES,
    OnnxNetwork,
    require_packages,
)
from mmvitcompress.errors import ConfigError
from mmvitcompress.utils.files import replacing

OPSET = 18
"""The first with antialiased resizing; understood by every current runtime."""


def output_names(network: DeployedNetwork, count: int) -> list[str]:
    """What a graph's outputs are called."""
    if network.part == 'encoder':
        return [f'level{i}' for i in range(count)]
    return ['logits'] if count == 1 else [f'logits{i}' for i in range(count)]


def export_onnx(
    network: DeployedNetwork,
    path: str | Path,
    opset: int = OPSET,
    images: Sequence[Tensor] = (),
) -> float:
    """Write a network as an ONNX file, once onnxruntime agrees with PyTorch.

    Its metadata tell what images it takes, under the key ``mmvitcompress``.

    Args:
        network: What to write.
        path: The file. One above 2 GB gets a second file with its weights.
        opset: Version of ONNX's operators, at least 18.
        images: Real ones (B, C, H, W) to compare on, besides random ones.

    Returns:
        :func:`~mmvitcompress.deploy.targets.base.graph_error` of the file.

    Raises:
        ConfigError: If the opset is too old, the network can't be written, or
            the error exceeds the tolerance; what was there before stays.
        DependencyError: If onnx, onnxscript or onnxruntime is missing.
    """
    require_packages()
    onnx_program = _convert(network, opset)
    path = Path(path)
    with replacing(path) as part:
        onnx_program.save(part)
        error = check_graph(
            *(network, OnnxNetwork(part), 'onnxruntime', images),
            remedy=f'try another opset than {opset}',
        )
        for weights in part.parent.glob(f'{path.name}.data'):
            weights.replace(path.with_name(weights.name))
    return error


def _convert(network: DeployedNetwork, opset: int) -> torch.onnx.ONNXProgram:
    if opset < OPSET:
        raise ConfigError(f'opset must be at least {OPSET}, but got {opset}')
    program = export_program(network)
    names = output_names(network, len(program.graph_signature.user_outputs))
    loggers = [logging.getLogger(n) for n in ('onnxscript', 'onnx_ir')]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with open(os.devnull, 'w') as null, redirect_stdout(null):
            onnx_program = torch.onnx.export(
                program,
                (network.example(),),
                input_names=[INPUT],
                output_names=names,
                opset_version=opset,
                dynamo=True,
                custom_translation_table=_translations(),
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        cause = error.__cause__ or error
        line = str(cause).strip().splitlines()[0]
        raise ConfigError(
            f'{network.describe()} cannot be written as ONNX of opset '
            f"{opset}; try another opset, or part='encoder': {line}"
        ) from error
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
    model = onnx_program.model
    _name_dimensions(model, network)
    model.metadata_props[METADATA] = metadata(network)
    return onnx_program


def _name_dimensions(model, network: DeployedNetwork) -> None:
    """Call dimensions batch, rows, columns and not s77."""
    import onnx_ir

    names = {}
    for dim, name in zip(
        (model.graph.inputs[0].shape[i] for i in (0, 2, 3)),
        ('batch', 'rows', 'columns'),
    ):
        symbol = re.search(r's\d+', str(dim))
        if symbol:
            names[symbol.group()] = name

    def renamed(dim):
        if not isinstance(dim, onnx_ir.SymbolicDim) or dim.value is None:
            return dim
        value = re.sub(
            r's\d+', lambda m: names.get(m.group(), m.group()), dim.value
        )
        return onnx_ir.SymbolicDim(value)

    values = [*model.graph.inputs]
    for node in model.graph:
        values.extend(node.outputs)
    for value in values:
        if value.shape is not None and not value.shape.frozen:
            value.shape = onnx_ir.Shape([renamed(d) for d in value.shape])


def _translations() -> dict[Callable, Callable]:
    """Operators that torch has no translation for."""
    from onnxscript import opset18 as op

    def sort_stable(x, stable=None, dim=-1, descending=False):
        # of equal values TopK names the one with the lower index first
        count = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]))
        return op.TopK(x, count, axis=dim, largest=int(descending), sorted=1)

    return {torch.ops.aten.sort.stable: sort_stable}


class OnnxTarget(Target):
    """ONNX files for onnxruntime."""

    name = 'onnx'
    suffix = '.onnx'
    packages = ONNX_PACKAGES
    precisions = ('float32', 'int8')
    refusals: ClassVar[dict[str, str]] = {
        'bf16': 'onnxruntime has no bfloat16 kernels for x86 processors; take '
        'the target openvino, or int8'
    }

    def write(self, network, path, images=(), **options) -> float:
        """See :func:`export_onnx`; ``opset`` is an option."""
        return export_onnx(network, path, images=images, **options)

    def load(self, path, precision='float32') -> Graph:
        """The file tells its own precision."""
        return OnnxNetwork(path)

    def quantize(self, path, out, batches) -> None:
        """See :func:`quantize_int8`."""
        quantize_int8(path, out, batches)
