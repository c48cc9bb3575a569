"""Write the network of a config's model for some runtimes, compared with
PyTorch and quantised."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmvitcompress.analysis.configs import default_shape
from mmvitcompress.analysis.timing import CLOCKS
from mmvitcompress.deploy import evaluation
from mmvitcompress.deploy.network import DeployedNetwork, GraphSpec
from mmvitcompress.deploy.targets import TARGETS, Target
from mmvitcompress.engine.launch import naming_data_errors
from mmvitcompress.errors import ConfigError
from mmvitcompress.utils.checks import check_choice, check_positive

COMPARED_IMAGES = 4


def image_shape(cfg: Config, model: nn.Module) -> tuple[int, int]:
    """Height and width that the config, or else its backbone, is about."""
    try:
        return default_shape(cfg)
    except ConfigError:
        arch = getattr(getattr(model, 'backbone', None), 'arch', None)
        if arch is None:
            raise
        return tuple(arch.img_size)


@dataclass(frozen=True)
class Trial:
    """What is measured of the files of a network.

    Args:
        int8: Whether there is to be an INT8 file as well. Defaults to False.
        bf16: Whether the file is to be run in bfloat16 as well, PyTorch under
            autocast. Defaults to False.
        images: What graphs are compared on besides random images: a folder or
            'dataset'. Defaults to None.
        calibration: Folder of images to calibrate INT8 on. Defaults to the
            validation data, without the images that accuracy is measured
            with.
        calibration_images: How many of them. Defaults to 64.
        check_images: Validation images to measure accuracy with. Defaults to
            0: not measured.
        batch_sizes: Numbers of images to time. Defaults to 1.
        memory: Whether to measure peak memory. Defaults to False.
        repeats: Timed runs, in turns. Defaults to 20.
        clock: One of :data:`CLOCKS`. Defaults to 'wall'.

    Raises:
        ConfigError: If a number is out of range.
    """

    int8: bool = False
    bf16: bool = False
    images: str | None = None
    calibration: str | None = None
    calibration_images: int = 64
    check_images: int = 0
    batch_sizes: tuple[int, ...] = (1,)
    memory: bool = False
    repeats: int = 20
    clock: str = 'wall'

    def __post_init__(self):
        check_positive('calibration_images', self.calibration_images)
        check_positive('repeats', self.repeats)
        check_choice('clock', self.clock, CLOCKS)
        for size in self.batch_sizes:
            check_positive('batch_sizes', size)
        if self.check_images:
            check_positive('check_images', self.check_images)

    def precisions(self) -> list[str]:
        """What files are run in."""
        asked = {'float32': True, 'bf16': self.bf16, 'int8': self.int8}
        return [name for name, wanted in asked.items() if wanted]


class Candidate(NamedTuple):
    """A model to ship, or one to compare it with."""

    cfg: Config
    model: nn.Module
    network: DeployedNetwork


class Row(NamedTuple):
    """A file as one runtime runs it in one precision."""

    target: Target
    path: str
    precision: str

    @property
    def name(self) -> str:
        """Such as 'onnx' or 'openvino int8'."""
        suffix = '' if self.precision == 'float32' else f' {self.precision}'
        return self.target.name + suffix


def check_possible(targets: Sequence[str], part: str, trial: Trial) -> None:
    """Raise before work is lost: ConfigError for a precision that none of the
    targets has and for the accuracy of a part that has none, DependencyError
    for a missing package."""
    if trial.check_images and part == 'backbone':
        raise ConfigError(
            "accuracy is measured of part 'encoder' or 'all', not 'backbone': "
            'leave --check-images out'
        )
    for precision in trial.precisions():
        without = [
            TARGETS[name]
            for name in targets
            if precision not in TARGETS[name].precisions
        ]
        if len(without) == len(targets):
            raise ConfigError(without[0].refusal(precision))
    for name in targets:
        TARGETS[name].require()


def check_batches(spec: GraphSpec, trial: Trial) -> None:
    """Raise ConfigError before work is lost if a graph of one batch size is
    to be timed with another that is no multiple of it."""
    for size in trial.batch_sizes:
        if spec.dynamic == 'none' and size % spec.batch_size:
            raise ConfigError(
                f'a graph for {spec.batch_size} images cannot be timed with '
                f'{size}: give --batch-size multiples of the first, or '
                '--dynamic batch'
            )


def ship(
    candidate: Candidate,
    stem: str | Path,
    targets: Sequence[str],
    trial: Trial,
    **options,
) -> tuple[dict[str, float], list[Row]]:
    """Write a network for some runtimes, each file compared with PyTorch.

    Args:
        candidate: What to write.
        stem: Path of the files without their suffixes.
        targets: Names of runtimes.
        trial: What is wanted of them.
        **options: Of the targets that have them, such as ``opset``.

    Returns:
        By target the ``relative_error`` of its float32 file; and what there
        is to run.
    """
    cfg, model, network = candidate
    shape, errors, rows = network.spec.shape, {}, []
    with naming_data_errors():
        real = []
        if trial.images:
            folder = None if trial.images == 'dataset' else trial.images
            real = _fitting(
                network,
                evaluation.calibration_images(
                    cfg, model, shape, COMPARED_IMAGES, folder
                ),
            )
        for name in targets:
            target = TARGETS[name]
            path = f'{stem}{target.suffix}'
            own = options if target.suffix.endswith('.onnx') else {}
            errors[name] = target.write(network, path, real, **own)
            for precision in trial.precisions():
                if precision not in target.precisions:
                    continue
                file = path
                if precision == 'int8':
                    file = f'{stem}.int8{target.suffix}'
                    images = evaluation.calibration_images(
                        *(cfg, model, shape, trial.calibration_images),
                        folder=trial.calibration,
                        check=trial.check_images,
                    )
                    target.quantize(path, file, _fitting(network, images))
                rows.append(Row(target, file, precision))
    return errors, rows


def _fitting(
    network: DeployedNetwork, images: Iterable[Tensor]
) -> list[Tensor]:
    """Images, in the batches that a graph of a fixed number takes."""
    images, spec = list(images), network.spec
    if spec.dynamic != 'none' or not images:
        return images
    count = -(-len(images) // spec.batch_size) * spec.batch_size
    images = [images[i % len(images)] for i in range(count)]
    return list(torch.cat(images).split(spec.batch_size))


def circumstances(network: DeployedNetwork, trial: Trial) -> dict:
    """How figures came about, for JSON."""
    spec = network.spec
    return dict(
        part=network.part,
        shape=list(spec.shape),
        dynamic=spec.dynamic,
        threads=torch.get_num_threads(),
        **asdict(trial),
    )
