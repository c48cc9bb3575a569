"""From a config to graphs and the figures that speak for them."""

from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from mmvitcompress.analysis.configs import build_model, default_shape
from mmvitcompress.analysis.timing import time_calls
from mmvitcompress.checkpoint import read_checkpoint, refuse_compactors
from mmvitcompress.deploy import evaluation
from mmvitcompress.deploy.network import DeployedNetwork, export_program
from mmvitcompress.deploy.onnx_export import OnnxNetwork
from mmvitcompress.deploy.quantization import quantize_int8
from mmvitcompress.errors import ConfigError
from mmvitcompress.training.strict_loading import require_fit


def load_model(cfg: Config, checkpoint: str | None = None) -> nn.Module:
    """The config's model with its trained weights, in evaluation mode.

    Args:
        cfg: The config.
        checkpoint: Of a training run, or of tools/export_pruned.py (then of
            the backbone and a classifier's head only). Its shape counts.
            Defaults to what the config's backbone starts from.

    Raises:
        CheckpointError: If it is missing or of another model.
    """
    if checkpoint is None:
        return build_model(cfg).eval()
    state_dict, meta = read_checkpoint(checkpoint)
    refuse_compactors(state_dict, checkpoint)
    backbone = cfg.model.backbone
    of_a_run = any(name.startswith('backbone.') for name in state_dict)
    if 'arch' in meta:
        for name in ('token_merging', 'patch_slimming'):
            backbone.pop(name, None)
        backbone.update(arch=dict(meta['arch']))
    if of_a_run:
        backbone.pop('checkpoint', None)
    else:
        backbone.update(checkpoint=checkpoint)
    model = build_model(cfg)
    if of_a_run:
        require_fit(model, state_dict, checkpoint)
    return model.eval()


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
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(export_program(network), path)


def quantize_from_config(
    cfg: Config,
    network: DeployedNetwork,
    model: nn.Module,
    path: str,
    out: str,
    folder: str | None,
    images: tuple[int, int],
) -> None:
    """INT8 with images that go through the config's own transforms.

    Args:
        cfg: The config.
        network: What ``path`` was made of.
        model: The model, for its normalisation.
        path: The float32 file.
        out: The file to write.
        folder: Images to calibrate on; None for the validation data.
        images: How many are measured with, and how many to calibrate on:
            see :func:`~mmvitcompress.deploy.evaluation.choose_images`.
    """
    if folder is not None:
        batches = evaluation.folder_batches(cfg, folder, images[1])
    else:
        dataset = evaluation.validation_data(cfg)
        chosen = evaluation.choose_images(len(dataset), *images)[1]
        batches = evaluation.dataset_batches(cfg, dataset, chosen)
    shape = network.spec.shape
    quantize_int8(
        path, out, evaluation.calibration_images(model, batches, shape)
    )


@torch.inference_mode()
def runtime_figures(
    cfg: Config,
    network: DeployedNetwork,
    model: nn.Module,
    files: Mapping[str, str],
    check_images: int = 0,
    repeats: int = 20,
) -> dict[str, dict]:
    """Time, size and accuracy of PyTorch and of each file.

    Args:
        cfg: The config.
        network: What the files were made of.
        model: The model that it is part of.
        files: ONNX files by name.
        check_images: Validation images to measure accuracy with. Defaults to
            0: not measured.
        repeats: Timed runs, in turns. Defaults to 20.

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
    times = time_calls(calls, images.device, repeats, parts=('overall',))
    rows = {name: {'ms': each['overall']} for name, each in times.items()}
    for name, file in files.items():
        rows[name]['mb'] = Path(file).stat().st_size / 1e6
    if check_images:
        models = {'pytorch': model} | {
            name: evaluation.with_graph(model, network.part, graph)
            for name, graph in graphs.items()
        }
        dataset = evaluation.validation_data(cfg)
        chosen = evaluation.choose_images(len(dataset), check_images, 0)[0]
        found = evaluation.compare_accuracy(cfg, models, dataset, chosen)
        for name, figures in found.items():
            rows[name].update(figures)
    return rows
