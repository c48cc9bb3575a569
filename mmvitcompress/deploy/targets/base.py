"""What every file format that a network can be written in has in common."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmvitcompress.deploy.network import DeployedNetwork
from mmvitcompress.errors import ConfigError, DependencyError
from mmvitcompress.version import __version__

TOLERANCE = 1e-4
"""By how much a float32 graph may differ, relative to the largest output."""

INPUT = 'images'
METADATA = 'mmvitcompress'
NO_IMAGES = 'INT8 needs images to calibrate on, but got none'
PRECISIONS = ('float32', 'bf16', 'int8')


class Graph(nn.Module, ABC):
    """A file that is run by its runtime, on CPU tensors and on as many
    threads as PyTorch.

    Args:
        input_shape: What the file says of its images (B, C, H, W): numbers
            where they are fixed, anything else where they may vary.
        metadata: As :func:`metadata` wrote it; empty for others' files.
    """

    def __init__(self, input_shape: Sequence, metadata: str | None = None):
        super().__init__()
        self.input_shape = list(input_shape)
        meta = json.loads(metadata or '{}')
        self.size_step = meta.get('size_step', [1, 1])

    @abstractmethod
    def run(self, images: Tensor) -> list[Tensor]:
        """Outputs for images (B, C, H, W) that the graph takes."""

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
        if not isinstance(fixed[0], int):
            return tuple(self.run(images))
        if len(images) % fixed[0]:
            raise ConfigError(
                f'the graph takes {fixed[0]} images at a time, which does '
                f'not divide {len(images)}: export it with --dynamic batch'
            )
        results = [self.run(chunk) for chunk in images.split(fixed[0])]
        return tuple(map(torch.cat, zip(*results)))


class Target(ABC):
    """A runtime and the files that it takes.

    What a target takes and returns is told here, once for all of them.

    Attributes:
        name: What ``tools/export.py --target`` calls it.
        suffix: Of its files.
        packages: To import, and what installs them.
        precisions: What its files can run in, of :data:`PRECISIONS`.
        refusals: Why not, for those that are missing there.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    install: ClassVar[str] = 'pip install -r requirements/export.txt'
    precisions: ClassVar[tuple[str, ...]] = ('float32',)
    refusals: ClassVar[dict[str, str]] = {}

    @abstractmethod
    def write(
        self,
        network: DeployedNetwork,
        path: str | Path,
        images: Sequence[Tensor] = (),
        **options,
    ) -> float:
        """Write a float32 file, once the runtime agrees with PyTorch.

        Args:
            network: What to write.
            path: The file. What was there before stays if anything fails.
            images: Real ones (B, C, H, W) to compare on, besides random ones.
            **options: Of this target.

        Returns:
            :func:`graph_error` of the file.

        Raises:
            ConfigError: If the network cannot be written, or the error
                exceeds :data:`TOLERANCE`.
            DependencyError: If a package is missing.
        """

    @abstractmethod
    def load(self, path: str | Path, precision: str = 'float32') -> Graph:
        """The graph of a file, to run on the CPU."""

    def quantize(
        self, path: str | Path, out: str | Path, batches: Iterable[Tensor]
    ) -> None:
        """Write an INT8 file of a float32 one; only where ``precisions`` has
        int8.

        Args:
            path: The float32 file.
            out: The INT8 file to write.
            batches: Calibration images (B, C, H, W), as the network takes
                them.

        Raises:
            ConfigError: If there are no images.
        """
        raise ConfigError(self.refusal('int8'))

    def refusal(self, precision: str) -> str:
        """Why there are no files of a precision."""
        return (
            f'{self.name} has no {precision} here: {self.refusals[precision]}'
        )

    def runs_here(self) -> bool:
        """Whether its files can be run on this machine."""
        return True

    def require(self) -> None:
        """Raise DependencyError unless all packages are there."""
        require_imports(self.name, self.packages, self.install)


def require_imports(
    purpose: str, packages: Iterable[str], install: str
) -> None:
    """Raise DependencyError unless packages can be imported.

    Args:
        purpose: What needs them.
        packages: Their names in Python.
        install: The command that installs them.
    """
    for name in packages:
        try:
            __import__(name)
        except ImportError as error:
            raise DependencyError(
                f'{name}, which {purpose} needs, cannot be imported '
                f'({error}): {install}'
            ) from error


def metadata(network: DeployedNetwork) -> str:
    """What a file tells of its images and its model, as JSON."""
    spec = network.spec
    content = dict(
        version=__version__,
        part=network.part,
        shape=list(spec.shape),
        dynamic=spec.dynamic,
        batch_size=spec.batch_size,
    )
    if spec.dynamic == 'size':
        content['size_step'] = list(network.size_step())
    if hasattr(network.backbone, 'arch'):
        content['arch'] = network.backbone.arch.to_dict()
    return json.dumps(content)


def check_graph(
    network: DeployedNetwork,
    graph: nn.Module,
    target: str,
    images: Sequence[Tensor] = (),
    remedy: str = "try dynamic='none'",
) -> float:
    """:func:`graph_error`, if it is small enough.

    Raises:
        ConfigError: If it exceeds :data:`TOLERANCE`.
    """
    error = graph_error(network, graph, images)
    if not error <= TOLERANCE:
        raise ConfigError(
            f'under {target} the graph of {network.describe()} differs from '
            f'PyTorch by {error:.2g} of the largest output; {remedy}'
        )
    return error


@torch.no_grad()
def graph_error(
    network: DeployedNetwork, graph: nn.Module, images: Sequence[Tensor] = ()
) -> float:
    """By how much a graph's outputs differ from the network's.

    They are compared on random images of every kind that the graph was made
    for: other numbers than it was traced with, and other sizes.

    Args:
        network: What the graph was made of.
        graph: Such as a :class:`Graph`.
        images: Batches (B, C, H, W) to compare on as well. Defaults to none.

    Returns:
        The largest difference as a fraction of the largest output.
    """
    worst = 0.0
    for batch in (*_probes(network), *images):
        expected, found = network(batch), graph(batch)
        if [t.shape for t in expected] != [t.shape for t in found]:
            return float('inf')
        for ours, theirs in zip(expected, found):
            scale = ours.abs().max().clamp(min=torch.finfo(ours.dtype).tiny)
            difference = ((ours - theirs).abs().max() / scale).item()
            if not difference <= worst:  # nan is the worst
                worst = difference
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
