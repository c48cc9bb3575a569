"""ONNX files for onnxruntime: written, run, quantised."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from mmvitcompress.deploy.network import DeployedNetwork
from mmvitcompress.deploy.targets.base import Graph, Target
from mmvitcompress.deploy.targets.onnx_file import export_onnx
from mmvitcompress.deploy.targets.onnx_int8 import quantize_int8
from mmvitcompress.deploy.targets.onnx_runtime import (
    ONNX_PACKAGES,
    OnnxNetwork,
)


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

    def write(
        self,
        network: DeployedNetwork,
        path: str | Path,
        images: Sequence[Tensor] = (),
        **options,
    ) -> float:
        """See :func:`export_onnx`; ``opset`` is an option."""
        return export_onnx(network, path, images=images, **options)

    def load(self, path: str | Path, precision: str = 'float32') -> Graph:
        """The file tells its own precision."""
        return OnnxNetwork(path)

    def quantize(
        self, path: str | Path, out: str | Path, batches: Iterable[Tensor]
    ) -> None:
        """See :func:`quantize_int8`."""
        quantize_int8(path, out, batches)
