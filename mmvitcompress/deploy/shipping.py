"""Export a model of a config; compare, time and quantise its graphs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from mmvitcompress.analysis.configs import default_shape
from mmvitcompress.analysis.timing import time_calls
from mmvitcompress.deploy import evaluation
from mmvitcompress.deploy.network import DeployedNetwork, export_program
from mmvitcompress.deploy.onnx_export import OPSET, export_onnx
from mmvitcompress.deploy.onnx_runtime import OnnxNetwork
from mmvitcompress.deploy.quantization import quantize_int8
from mmvitcompress.engine.launch import naming_data_errors
from mmvitcompress.errors import ConfigError
from mmvitcompress.utils.checks import check_positive
from mmvitcompress.utils.files import write_atomically


def image_shape(cfg: Config, model: nn.Module) -> tuple[int, int]:
    """Height and width that the config, or else its backbone, is about."""
    try:
        return default_shape(cfg)
    except ConfigError:
        arch = getattr(getattr(model, 'backbone', None), 'arch', None)
        if arch is None:
            raise
        return tuple(arch.img_size)


def save_program(network: DeployedNetwork, path: str | Path) -> None:
    """Write a network as a file that ``torch.export.load`` reads."""
    # not to the disk at once: torch ends the process where that is full
    content = BytesIO()
    torch.export.save(export_program(network), content)
    write_atomically(path, content.getvalue())


@dataclass(frozen=True)
class Trial:
    """What is measured of the files of a network.

    Args:
        int8: Whether there is to be an INT8 file as well. Defaults to False.
        calibration: Folder of images to calibrate it on. Defaults to the
            validation data, without the images that accuracy is measured
            with.
        calibration_images: How many of them. Defaults to 64.
        check_images: Validation images to measure accuracy with. Defaults to
            0: not measured.
        repeats: Timed runs, in turns. Defaults to 20.

    Raises:
        ConfigError: If a number is out of range.
    """

    int8: bool = False
    calibration: str | None = None
    calibration_images: int = 64
    check_images: int = 0
    repeats: int = 20

    def __post_init__(self):
        check_positive('calibration_images', self.calibration_images)
        check_positive('repeats', self.repeats)
        if self.check_images:
            check_positive('check_images', self.check_images)


def ship(
    cfg: Config,
    network: DeployedNetwork,
    model: nn.Module,
    path: str,
    trial: Trial,
    opset: int = OPSET,
) -> dict:
    """Write a network as ONNX and see what became of it.

    Args:
        cfg: The config.
        network: What to write.
        model: The model that it is part of.
        path: The file, ``*.onnx``; that of INT8 is ``*.int8.onnx``.
        trial: What to measure.
        opset: Version of ONNX's operators.

    Returns:
        ``relative_error`` of the float32 file; ``files``; ``runtimes``, see
        :func:`runtime_figures`; and how they came about.
    """
    spec = network.spec
    error = export_onnx(network, path, opset)
    files = {'onnx': path}
    with naming_data_errors():
        if trial.int8:
            files['onnx int8'] = str(Path(path).with_suffix('.int8.onnx'))
            images = evaluation.calibration_images(
                *(cfg, model, spec.shape, trial.calibration_images),
                folder=trial.calibration,
                check=trial.check_images,
            )
            quantize_int8(path, files['onnx int8'], images)
        rows = runtime_figures(cfg, network, model, files, trial)
    return dict(
        part=network.part,
        shape=list(spec.shape),
        dynamic=spec.dynamic,
        batch_size=spec.batch_size,
        opset=opset,
        threads=torch.get_num_threads(),
        **asdict(trial),
        relative_error=error,
        files=files,
        runtimes=rows,
    )


@torch.inference_mode()
def runtime_figures(
    cfg: Config,
    network: DeployedNetwork,
    model: nn.Module,
    files: Mapping[str, str],
    trial: Trial,
) -> dict[str, dict]:
    """Time, size and accuracy of PyTorch and of each file.

    Arguments are those of :func:`ship`, and ``files``, ONNX files by name.

    Returns:
        By name, 'pytorch' included: ``ms`` (median, min and max of a batch of
        ``spec.batch_size``), ``mb``; with images to check ``metrics`` and
        ``agreement``.
    """
    graphs = {name: OnnxNetwork(file) for name, file in files.items()}
    images = network.example(network.spec.batch_size)
    runners = {'pytorch': network, **graphs}
    calls = {
        name: {'overall': lambda run=run: run(images)}
        for name, run in runners.items()
    }
    times = time_calls(calls, images.device, trial.repeats, parts=('overall',))
    rows = {name: {'ms': each['overall']} for name, each in times.items()}
    for name, file in files.items():
        rows[name]['mb'] = Path(file).stat().st_size / 1e6
    if trial.check_images:
        models = {'pytorch': model} | {
            name: evaluation.with_graph(model, network.part, graph)
            for name, graph in graphs.items()
        }
        dataset = evaluation.validation_data(cfg)
        chosen, _ = evaluation.choose_images(
            len(dataset), trial.check_images, trial.calibration_images
        )
        found = evaluation.compare_accuracy(cfg, models, dataset, chosen)
        for name, figures in found.items():
            rows[name].update(figures)
    return rows
