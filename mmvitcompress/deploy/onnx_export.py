"""ONNX files: written, checked against PyTorch, and run as modules."""

import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from mmvitcompress.deploy.network import DeployedNetwork, export_program
from mmvitcompress.errors import ConfigError, DependencyError
from mmvitcompress.version import __version__

OPSET = 18
"""The first with antialiased resizing; understood by every current runtime."""

TOLERANCE = 1e-4
"""By how much a float32 graph may differ, relative to the largest output."""

INPUT = 'images'
METADATA = 'mmvitcompress'
_INSTALL = 'pip install -r requirements/export.txt'


def require_packages() -> None:
    """See that all is there that writes and runs ONNX files.

    Raises:
        DependencyError: If a package is missing.
    """
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        try:
            __import__(name)
        except ImportError as error:
            raise DependencyError(
                f'{name}, which ONNX export needs, cannot be imported '
                f'({error}): {_INSTALL}'
            ) from error


def output_names(network: DeployedNetwork, count: int) -> list[str]:
    """What a graph's outputs are called."""
    if network.part == 'encoder':
        return [f'level{i}' for i in range(count)]
    return ['logits'] if count == 1 else [f'logits{i}' for i in range(count)]


def export_onnx(
    network: DeployedNetwork,
    path: str | Path,
    opset: int = OPSET,
    program: ExportedProgram | None = None,
) -> None:
    """Write a network as an ONNX file.

    Its metadata tell what images it takes, under the key ``mmvitcompress``.

    Args:
        network: What to write.
        path: The file. One above 2 GB gets a second file with its weights.
        opset: Version of ONNX's operators, at least 18.
        program: The same network as :func:`export_program` makes it, if it is
            there already.

    Raises:
        ConfigError: If the opset is too old, or the network can't be written.
        DependencyError: If onnx or onnxscript is missing.
    """
    require_packages()
    if opset < OPSET:
        raise ConfigError(f'opset must be at least {OPSET}, but got {opset}')
    program = export_program(network) if program is None else program
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
    model.metadata_props[METADATA] = json.dumps(_describe(network))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    onnx_program.save(path)


def export_checked(
    network: DeployedNetwork, path: str | Path, opset: int = OPSET
) -> float:
    """:func:`export_onnx`, and compare the file with the network.

    Returns:
        :func:`graph_error` of the file under onnxruntime.

    Raises:
        ConfigError: If it exceeds :data:`TOLERANCE`; the file is removed.
    """
    export_onnx(network, path, opset)
    error = graph_error(network, OnnxNetwork(path))
    if not error <= TOLERANCE:
        Path(path).unlink()
        raise ConfigError(
            f'under onnxruntime the graph of {network.describe()} differs '
            f'from PyTorch by {error:.2g} of the largest output; try another '
            f'opset than {opset}'
        )
    return error


def _describe(network: DeployedNetwork) -> dict:
    spec = network.spec
    content = dict(
        version=__version__,
        part=network.part,
        shape=list(spec.shape),
        dynamic=spec.dynamic,
    )
    if spec.dynamic == 'size':
        content['size_step'] = list(network.size_step())
    if hasattr(network.backbone, 'arch'):
        content['arch'] = network.backbone.arch.to_dict()
    return content


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


class OnnxNetwork(nn.Module):
    """An ONNX file that runs under onnxruntime, on CPU tensors.

    Args:
        path: The file.
        threads: How many threads an operator may use. Defaults to as many as
            PyTorch does, so that times can be compared.

    Raises:
        DependencyError: If onnxruntime is missing.
    """

    def __init__(self, path: str | Path, threads: int | None = None):
        super().__init__()
        require_packages()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=['CPUExecutionProvider']
        )
        self.input_shape = self.session.get_inputs()[0].shape
        meta = self.session.get_modelmeta().custom_metadata_map
        meta = json.loads(meta.get(METADATA, '{}'))
        self.size_step = meta.get('size_step', [1, 1])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) → what the graph returns.

        Raises:
            ConfigError: If the graph does not take images of this size.
        """
        fixed = self.input_shape
        if any(
            isinstance(want, int) and want != got
            for want, got in zip(fixed[2:], images.shape[2:])
        ):
            raise ConfigError(
                f'the graph takes images of {fixed[2]}×{fixed[3]}, but got '
                f'{images.shape[2]}×{images.shape[3]}: export another size '
                '(--shape), or a graph of dynamic size (--dynamic size)'
            )
        if any(n % step for n, step in zip(images.shape[2:], self.size_step)):
            raise ConfigError(
                'the graph takes images whose height and width are multiples '
                f'of {self.size_step[0]} and {self.size_step[1]}, but got '
                f'{images.shape[2]}×{images.shape[3]}: pad them'
            )
        chunks = [images]
        if isinstance(fixed[0], int):
            if len(images) % fixed[0]:
                raise ConfigError(
                    f'the graph takes {fixed[0]} images at a time, which does '
                    f'not divide {len(images)}: export it with '
                    '--dynamic batch'
                )
            chunks = images.split(fixed[0])
        results = [
            self.session.run(None, {INPUT: chunk.contiguous().numpy()})
            for chunk in chunks
        ]
        return tuple(
            torch.cat([torch.from_numpy(part) for part in parts])
            if len(parts) > 1
            else torch.from_numpy(parts[0])
            for parts in zip(*results)
        )


@torch.no_grad()
def graph_error(
    network: DeployedNetwork,
    graph: nn.Module,
    batches: Sequence[Tensor] | None = None,
) -> float:
    """By how much a graph's outputs differ from the network's.

    Args:
        network: What the graph was made of.
        graph: Such as an :class:`OnnxNetwork`.
        batches: Images (B, 3, H, W) each. Defaults to random ones of every
            kind that the graph was made for: other numbers than it was traced
            with, and other sizes.

    Returns:
        The largest difference as a fraction of the largest output, the worst
        over all batches and outputs.
    """
    batches = _probes(network) if batches is None else batches
    worst = 0.0
    for images in batches:
        expected, found = network(images), graph(images)
        if [t.shape for t in expected] != [t.shape for t in found]:
            return float('inf')
        for ours, theirs in zip(expected, found):
            difference = (ours - theirs).abs().max() / ours.abs().max()
            worst = max(worst, difference.item())
    return worst


def _probes(network: DeployedNetwork) -> list[Tensor]:
    spec = network.spec
    if spec.dynamic == 'none':
        return [network.example()]
    probes = [network.example(1), network.example(3)]
    if spec.dynamic == 'size':
        height, width = spec.shape
        rows, columns = network.size_step()
        probes.append(torch.randn(1, 3, height + rows, width + 2 * columns))
    return probes
