"""Programs of torch.export (``*.pt2``), which need torch alone."""

import json
from io import BytesIO
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from mmvitcompress.deploy.network import export_program
from mmvitcompress.deploy.targets.base import (
    METADATA,
    Graph,
    Target,
    check_graph,
    metadata,
)
from mmvitcompress.utils.files import write_atomically

_FILE = f'{METADATA}.json'


class TorchProgram(Graph):
    """A file of ``torch.export.save`` on the CPU.

    Args:
        path: The ``*.pt2`` file.
        precision: 'float32', or 'bf16' to run it under autocast. Defaults to
            'float32'.
    """

    def __init__(self, path: str | Path | BytesIO, precision: str = 'float32'):
        extra = {_FILE: ''}
        program = torch.export.load(path, extra_files=extra)
        meta = json.loads(extra[_FILE] or '{}')
        shape = [None, None, *meta.get('shape', (None, None))]
        if meta.get('dynamic') == 'none':
            shape[0] = meta['batch_size']
        if meta.get('dynamic') == 'size':
            shape[2:] = None, None
        super().__init__(shape, extra[_FILE])
        self.precision = precision
        # Graph.forward asks more clearly, and torch's own guards take a
        # batch of one for another graph's
        self.program = program.module(check_guards=False)

    def run(self, images: Tensor) -> list[Tensor]:
        """Outputs for images (B, C, H, W), float32."""
        low = self.precision == 'bf16'
        with torch.autocast('cpu', torch.bfloat16, enabled=low):
            outputs = self.program(images)
        return [output.float() for output in outputs]


class TorchTarget(Target):
    """Programs of torch.export, for torch without this package."""

    name = 'torch'
    suffix = '.pt2'
    precisions = ('float32', 'bf16')
    refusals: ClassVar[dict[str, str]] = {
        'int8': 'torch quantises through other packages; take the target '
        'onnx or openvino'
    }

    def write(self, network, path, images=(), **options) -> float:
        """Write a file that ``torch.export.load`` reads; no options."""
        # not to the disk at once: torch ends the process where that is full
        content = BytesIO()
        torch.export.save(
            export_program(network),
            content,
            extra_files={_FILE: metadata(network)},
        )
        content.seek(0)
        error = check_graph(
            network, TorchProgram(content), 'torch.export', images
        )
        write_atomically(path, content.getvalue())
        return error

    def load(self, path, precision='float32') -> Graph:
        """See :class:`TorchProgram`."""
        return TorchProgram(path, precision)
