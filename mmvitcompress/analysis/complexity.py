"""MACs and parameters of a model by backbone, neck and head."""

from typing import Any

import torch
from torch import nn

from mmvitcompress.analysis.inference import (
    TRAINING_ONLY,
    encoder_parts,
    evaluating,
    image_channels,
    padded_shape,
    region_counts,
    run_network,
    split_neck,
)
from mmvitcompress.analysis.macs import count_macs, count_params


def model_complexity(
    model: nn.Module, shape: tuple[int, int], convention: str = 'fvcore'
) -> dict[str, Any]:
    """Count what inference on one image costs.

    The head is all that is neither backbone nor neck; what only training
    uses (auxiliary heads, a teacher) is left out and reported by itself. The
    image is padded as the model's own preprocessor would, and post-processing
    (resizing to the image, argmax, pasting of masks) is not part of it.

    Args:
        model: Classifier, segmentor or detector, on any device.
        shape: Height and width of the image in pixels.
        convention: See :func:`~mmvitcompress.analysis.macs.count_macs`.
            Defaults to ``'fvcore'``.

    Returns:
        ``shape``; ``input_shape`` after padding; ``convention``;
        ``parts.{backbone,neck,head}.{macs,params}``;
        ``encoder.{macs,params}`` of the backbone and what of the neck
        restores and resamples its maps;
        ``total.{macs,params}``; ``training_only.params``;
        ``operators``: MACs by operator; ``uncounted``: calls of operators
        that may cost something but are not in the convention; for two-stage
        detectors ``regions``, see
        :func:`~mmvitcompress.analysis.inference.region_counts`.
    """
    input_shape = padded_shape(model, shape)
    device = next(model.parameters()).device
    # any picture would do, but values that differ keep every branch alive
    generator = torch.Generator().manual_seed(0)
    size = (1, image_channels(model), *input_shape)
    image = torch.randn(size, generator=generator).to(device)

    pyramid, fusing = split_neck(model)
    parts = {
        'backbone': encoder_parts(model)[0],
        'pyramid': pyramid,
        'fusing': fusing,
    }
    unused = [getattr(model, name, None) for name in TRAINING_ONLY]
    unused = [module for module in unused if module is not None]
    with evaluating(model):
        count = count_macs(
            lambda: run_network(model, image),
            parts=parts,
            rest='head',
            convention=convention,
        )
    params = count_params(model, parts, rest='head', exclude=unused)
    all_params = sum(count_params(model).values())
    used_params = sum(params.values())

    def costs(*names: str) -> dict[str, int]:
        return {
            'macs': sum(count.parts[name] for name in names),
            'params': sum(params[name] for name in names),
        }

    result = {
        'shape': list(shape),
        'input_shape': list(input_shape),
        'convention': convention,
        'parts': {
            'backbone': costs('backbone'),
            'neck': costs('pyramid', 'fusing'),
            'head': costs('head'),
        },
        'encoder': costs('backbone', 'pyramid'),
        'total': {'macs': count.total, 'params': used_params},
        'training_only': {'params': all_params - used_params},
        'operators': count.operators,
        'uncounted': count.uncounted,
    }
    if regions := region_counts(model):
        result['regions'] = regions
    return result
