"""What the report measures: models and sizes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from mmvitcompress.analysis.configs import load_config
from mmvitcompress.analysis.gpu.modes import ARITHMETIC
from mmvitcompress.engine.build import build
from mmvitcompress.errors import ConfigError
from mmvitcompress.utils.files import shipped

Models = Mapping[str, str]
"""Config files by what the report calls their models."""


def _deit(head: str, *names: str) -> dict[str, str]:
    return {name: f'{head}_{name}_deit_s_ade20k' for name in names}


@dataclass(frozen=True)
class ReportPlan:
    """Models and sizes of a report.

    Args:
        device: Where to measure.
        heads: By head its models, the first of which the others are compared
            with, and the one called 'dense' is without compression.
        detectors: Models for ``detector_shape``.
        peers: More backbones to look at, besides those of the first head.
        shape: Height and width of images of segmentors.
        detector_shape: The same for detectors.
        batches: Numbers of images.
        repeats: Timed rounds.
        compiler: Backend of ``torch.compile``.
        precisions: In which backbones are timed.
        prepare: Makes another form of the compressed model, such as
            :func:`~mmvitcompress.deploy.optimize.optimize_for_inference`.
        scale: By what estimates of time are multiplied.
    """

    device: torch.device
    heads: Mapping[str, Models] = field(
        default_factory=lambda: {
            'UperNet': _deit(
                'upernet', 'stock', 'dense', 'cait', 'atme', 'tome', 'mmsegvit'
            ),
            'Semantic FPN': _deit('semfpn', 'stock', 'dense', 'cait'),
            'Mask2Former': _deit('mask2former', 'stock', 'dense', 'cait'),
        }
    )
    detectors: Models = field(
        default_factory=lambda: {
            name: f'mask_rcnn_{name}_deit_s_coco'
            for name in ('stock', 'dense', 'cait')
        }
    )
    peers: Models = field(
        default_factory=lambda: {
            'DINOv2-S, dense': 'upernet_dense_dinov2_s_ade20k',
            'DINOv2-S, ATME': 'upernet_atme_dinov2_s_ade20k',
            'DeiT-B, dense': 'upernet_dense_deit_b_ade20k',
        }
    )
    shape: tuple[int, int] = (512, 512)
    detector_shape: tuple[int, int] = (800, 1333)
    batches: tuple[int, ...] = (32, 8, 1)
    repeats: int = 20
    compiler: str = 'inductor'
    precisions: tuple[str, ...] = tuple(ARITHMETIC)
    prepare: Callable[[nn.Module], nn.Module] | None = None
    scale: float = 1.0


def quick_plan(device: torch.device, **kwargs) -> ReportPlan:
    """The same sections with small models, for minutes on a CPU."""

    def small(head: str, *names: str) -> dict[str, str]:
        return {name: f'{head}_{name}_vit_micro_digits' for name in names}

    return ReportPlan(
        device,
        heads={'Semantic FPN': small('semfpn', 'dense', 'cait')},
        detectors=small('mask_rcnn', 'dense', 'atme'),
        peers={},
        shape=(64, 64),
        detector_shape=(64, 96),
        batches=(2, 1),
        repeats=1,
        compiler='eager',  # inductor takes minutes on a CPU
        precisions=('float32', 'bf16'),
        scale=0,
        **kwargs,
    )


def load_shipped(name: str) -> nn.Module:
    """The model of a shipped config, in evaluation mode.

    Raises:
        ConfigError: If the config was not installed.
    """
    path = shipped(f'configs/{name}.py')
    if path is None:
        raise ConfigError(
            f'config {name} is not installed: run from a clone of the '
            'repository'
        )
    return build(load_config(str(path)), purpose='measure')
