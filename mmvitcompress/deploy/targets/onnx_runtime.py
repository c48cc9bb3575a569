"""ONNX files under onnxruntime, as modules."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmvitcompress.deploy.targets.base import (
    INPUT,
    METADATA,
    Graph,
    Target,
    require_imports,
)

ONNX_PACKAGES = ('onnx', 'onnxscript', 'onnxruntime')


def require_packages() -> None:
    """Raise DependencyError unless all is there that ONNX files need."""
    require_imports('ONNX export', ONNX_PACKAGES, Target.install)


class OnnxNetwork(Graph):
    """An ONNX file that runs under onnxruntime, on CPU tensors and on as many
    threads as PyTorch.

    Args:
        path: The file.
        providers: Of onnxruntime, what runs it. Defaults to the CPU's.

    Raises:
        DependencyError: If onnxruntime is missing.
    """

    def __init__(
        self,
        path: str | Path,
        providers: Sequence = ('CPUExecutionProvider',),
    ):
        require_packages()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            str(path), options, providers=list(providers)
        )
        meta = session.get_modelmeta().custom_metadata_map
        super().__init__(session.get_inputs()[0].shape, meta.get(METADATA))
        self.session = session

    def run(self, images: Tensor) -> list[Tensor]:
        """Outputs for images (B, C, H, W)."""
        feeds = {INPUT: images.contiguous().numpy()}
        return list(map(torch.from_numpy, self.session.run(None, feeds)))
