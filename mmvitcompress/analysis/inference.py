"""Running classifiers, segmenters and detectors on bare images.

What is run is the network: backbone, neck and head up to their raw outputs,
without the loading and normalising before and the resizing, voting and
non-maximum suppression after it. Two-stage detectors get a fixed number of
regions, whatever their weights find, so that figures can be compared.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from itertools import dropwhile
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

TRAINING_ONLY = ('auxiliary_head', 'teacher')


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Switch models to evaluation; afterwards restore each module's mode."""
    modes = [
        (module, module.training)
        for model in models
        for module in model.modules()
    ]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def encoder_parts(
    model: nn.Module,
) -> tuple[nn.Module | None, nn.Module | None]:
    """Backbone and neck of ``model``; all the rest is its head."""
    return getattr(model, 'backbone', None), getattr(model, 'neck', None)


def image_channels(model: nn.Module) -> int:
    """Channels of the images that ``model`` takes.

    What the backbone's arch says; of a backbone without one, what its first
    convolution takes. 3 if it has none.
    """
    backbone = encoder_parts(model)[0] or model
    arch = getattr(backbone, 'arch', None)
    if hasattr(arch, 'in_chans'):
        return arch.in_chans
    convs = (m for m in backbone.modules() if isinstance(m, nn.Conv2d))
    first = next(convs, None)
    return 3 if first is None else first.in_channels


def split_neck(model: nn.Module) -> tuple[list[nn.Module], list[nn.Module]]:
    """The neck's modules in their order, none if there is no neck.

    Returns:
        Those that restore and resample maps, which with the backbone are the
        paper's encoder; and the others: the first FPN, which fuses levels,
        and all behind it.
    """
    neck = encoder_parts(model)[1]
    if neck is None:
        return [], []
    modules = list(neck) if isinstance(neck, nn.Sequential) else [neck]
    fusing = [*dropwhile(lambda m: 'FPN' not in type(m).__name__, modules)]
    return modules[: len(modules) - len(fusing)], fusing


def run_network(
    model: nn.Module, images: Tensor, samples: list | None = None
) -> Any:
    """Run all of the network of ``model`` and return its raw outputs.

    Args:
        model: An mmseg segmentor, an mmdet detector, any other model of
            MMEngine that knows ``mode='tensor'``, or a plain module.
        images: (B, C, H, W), normalised and padded.
        samples: Their :func:`data_samples`, if they were made before.
            Defaults to None.
    """
    if not isinstance(model, BaseModel):
        return model(images)
    if samples is None:
        samples = data_samples(model, images)
    if _is_two_stage(model):
        return _run_two_stage(model, images, samples)
    head = getattr(model, 'decode_head', None)
    parameters = head is not None and signature(head.forward).parameters
    if parameters and 'batch_data_samples' in parameters:
        # mmseg's Mask2Former, which EncoderDecoder's own mode='tensor'
        # calls without the samples that it needs
        return head.forward(model.extract_feat(images), samples)
    return model(images, samples, mode='tensor')


def data_samples(model: nn.Module, images: Tensor) -> list | None:
    """Empty data samples that say how large ``images`` are.

    Returns:
        One for each image; None for a model that is neither mmseg's nor
        mmdet's.
    """
    origins = {base.__module__.split('.')[0] for base in type(model).__mro__}
    if 'mmseg' in origins:
        from mmseg.structures import SegDataSample as Sample
    elif 'mmdet' in origins:
        from mmdet.structures import DetDataSample as Sample
    else:
        return None
    size = tuple(images.shape[-2:])
    sizes = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
    metainfo = dict.fromkeys(sizes, size) | {'scale_factor': (1.0, 1.0)}
    return [Sample(metainfo=dict(metainfo)) for _ in images]


def padded_shape(model: nn.Module, shape: tuple[int, int]) -> tuple[int, int]:
    """What the model's own preprocessor makes of an image's (H, W)."""
    preprocessor = getattr(model, 'data_preprocessor', None)
    if preprocessor is None:
        return shape
    image = torch.zeros(image_channels(model), *shape, dtype=torch.uint8)
    batch = {
        'inputs': [image],
        'data_samples': data_samples(model, image[None]),
    }
    return tuple(preprocessor(batch, training=False)['inputs'][0].shape[-2:])


def region_counts(model: nn.Module) -> dict[str, int]:
    """Regions per image that a two-stage detector's heads are run on.

    As many boxes as the RPN hands on at most, and as many masks as objects
    are kept at most, both from the model's ``test_cfg``.

    Returns:
        ``{'proposals': ..., 'masks': ...}``; empty for models without RoI
        heads, and for those whose RoI heads go ways of their own (Sparse
        R-CNN, HTC), which are run as mmdet runs them.
    """
    if not _is_two_stage(model):
        return {}
    config = model.test_cfg
    counts = {'proposals': config['rpn'].get('max_per_img', 1000)}
    if model.roi_head.with_mask:
        masks = config['rcnn'].get('max_per_img', 100)
        counts['masks'] = min(masks, counts['proposals'])
    return counts


def _is_two_stage(model: nn.Module) -> bool:
    if not (hasattr(model, 'rpn_head') and hasattr(model, 'roi_head')):
        return False
    from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead

    forward = type(model.roi_head).forward
    return forward in (CascadeRoIHead.forward, StandardRoIHead.forward)


def _run_two_stage(model: nn.Module, images: Tensor, samples: list) -> Any:
    features = model.extract_feat(images)
    results = model.rpn_head.predict(features, samples, rescale=False)
    counts = region_counts(model)
    whole = images.new_tensor([[0, 0, images.shape[-1], images.shape[-2]]])
    boxes = []
    for result in results:
        found = torch.cat([result.bboxes, whole])
        boxes.append(found[torch.arange(counts['proposals']) % len(found)])
    return _run_regions(
        model.roi_head, features, boxes, samples, counts.get('masks', 0)
    )


def _run_regions(
    head: nn.Module,
    features: tuple[Tensor, ...],
    boxes: list[Tensor],
    samples: list,
    masks: int,
) -> Any:
    """Boxes (n, 4) of each image → raw outputs, masks for the first few.

    The heads' own ``forward`` draws 100 masks in all, and a cascade one for
    every proposal.
    """
    from mmdet.structures.bbox import bbox2roi

    rois = bbox2roi(boxes)
    counts = [len(each) for each in boxes]
    if hasattr(head, 'num_stages'):
        metas = [sample.metainfo for sample in samples]
        rois, *outputs = head._refine_roi(features, rois, metas, counts)
        stages = [(stage,) for stage in range(head.num_stages)]
    else:
        outputs = head._bbox_forward(features, rois)
        rois = rois.split(counts)
        stages = [()]
    if not masks:
        return outputs
    kept = torch.cat([each[:masks] for each in rois])
    drawn = [head._mask_forward(*stage, features, kept) for stage in stages]
    return outputs, drawn
