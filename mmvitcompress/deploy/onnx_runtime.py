"""ONNX files under onnxruntime: run as modules, compared with PyTorch."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from mmvitcompress.deploy.network import DeployedNetwork
from mmvitcompress.errors import ConfigError, DependencyError

TOLERANCE = 1e-4
"""By how much a float32 graph may differ, relative to the largest output."""

INPUT = 'images'
METADATA = 'mmvitcompress'
_INSTALL = 'pip install -r requirements/export.txt'


def require_packages() -> None:
    """Raise DependencyError unless all is there that ONNX files need."""
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        try:
            __import__(name)
        except ImportError as error:
            raise DependencyError(
                f'{name}, which ONNX export needs, cannot be imported '
                f'({error}): {_INSTALL}'
            ) from error


class OnnxNetwork(nn.Module):
    """An ONNX file that runs under onnxruntime, on CPU tensors and on as many
    threads as PyTorch.

    Raises:
        DependencyError: If onnxruntime is missing.
    """

    def __init__(self, path: str | Path):
        super().__init__()
        require_packages()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=['CPUExecutionProvider']
        )
        self.input_shape = self.session.get_inputs()[0].shape
        meta = self.session.get_modelmeta().custom_metadata_map
        meta = json.loads(meta.get(METADATA, '{}'))
        self.size_step = meta.get('size_step', [1, 1])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, C, H, W) → what the graph returns.

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
            torch.cat(list(map(torch.from_numpy, parts)))
            for parts in zip(*results)
        )


@torch.no_grad()
def graph_error(
    network: DeployedNetwork,
    graph: nn.Module,
) -> float:
    """By how much a graph's outputs differ from the network's.

    They are compared on random images of every kind that the graph was made
    for: other numbers than it was traced with, and other sizes.

    Args:
        network: What the graph was made of.
        graph: Such as an :class:`OnnxNetwork`.

    Returns:
        The largest difference as a fraction of the largest output.
    """
    worst = 0.0
    for images in _probes(network):
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
        shape = (height + rows, width + 2 * columns)
        probes.append(network.images(1, shape))
    return probes
