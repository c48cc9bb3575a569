"""Real images for a graph: to calibrate on, and to measure accuracy with.

A graph is put in place of the part of the model that it was made of; all else
(normalising, resizing, the evaluator) stays the config's own.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from mmvitcompress.analysis.images import tested_images
from mmvitcompress.deploy.heads import graph_head, head_name
from mmvitcompress.engine.config import use_scope, validation_loader
from mmvitcompress.engine.export import preprocessed
from mmvitcompress.errors import ConfigError
from mmvitcompress.utils.images import equally_spaced


def validation_data(cfg: Config) -> Dataset:
    """The config's validation data.

    Raises:
        ConfigError: If it has none, or data that come in sequence only.
    """
    use_scope(cfg)
    dataset = DATASETS.build(validation_loader(cfg)['dataset'])
    if not hasattr(dataset, '__getitem__'):
        raise ConfigError(
            f'{type(dataset).__name__} can only be read in sequence: set a '
            'val_dataloader.dataset of images that can be chosen from'
        )
    return dataset


def choose_images(total: int, check: int, calibrate: int) -> tuple[list, list]:
    """Indices of at most ``check`` images of ``total`` to measure with, and of
    ``calibrate`` others to calibrate on.

    Both are spread over the data, which are often sorted by class; they have
    images in common only if measuring takes all.
    """
    checked = equally_spaced(total, check)
    others = sorted(set(range(total)) - set(checked)) or range(total)
    return checked, [others[i] for i in equally_spaced(len(others), calibrate)]


def dataset_batches(
    cfg: Config, dataset: Dataset, indices: Sequence[int]
) -> Iterator[Any]:
    """Batches of some images, as the config's data preprocessor takes them."""
    loader = {
        **validation_loader(cfg),
        'dataset': Subset(dataset, indices),
        'num_workers': 0,
        'persistent_workers': False,
    }
    yield from Runner.build_dataloader(loader)


def calibration_images(
    cfg: Config,
    model: nn.Module,
    shape: tuple[int, int],
    count: int,
    folder: str | None = None,
    check: int = 0,
) -> Iterator[Tensor]:
    """Single images (1, 3, H, W) of ``shape``, normalised by the model.

    Args:
        cfg: The config.
        model: Its model.
        shape: Height and width in pixels.
        count: How many images at most.
        folder: Where they are, as of
            :func:`~mmvitcompress.analysis.images.tested_images`. Defaults to
            the validation data, without ``check`` images to measure with.
        check: See there.
    """
    if folder is not None:
        cfg = copy(cfg)  # prepared as the validation data are
        cfg.test_dataloader = validation_loader(cfg)
        images = tested_images(folder, cfg, model, count)
    else:
        dataset = validation_data(cfg)
        chosen = choose_images(len(dataset), check, count)[1]
        batches = dataset_batches(cfg, dataset, chosen)
        images = chain.from_iterable(preprocessed(model, b) for b in batches)
    for image in images:
        image = image[None]
        if tuple(image.shape[-2:]) != shape:
            image = F.interpolate(image, shape, mode='bilinear')
        yield image


def with_graph(model: nn.Module, part: str, graph: nn.Module) -> nn.Module:
    """A copy of a model that runs a graph, (B, 3, H, W) → tuple of tensors,
    in place of the part ('encoder' or 'all') that it was made of."""
    stand_in = copy(model)
    changes = {'backbone': graph}
    if getattr(model, 'neck', None) is not None:
        changes['neck'] = None
    if part == 'all':
        name, wrapped = head_name(model), graph_head(model)
        head = copy(getattr(model, name))
        # what is around forward (resizing, classes) is still needed
        head.forward = lambda outputs, *_: wrapped.answer(outputs)
        changes[name] = head
    stand_in._modules = {**model._modules, **changes}
    return stand_in


@torch.inference_mode()
def compare_accuracy(
    cfg: Config,
    models: Mapping[str, nn.Module],
    dataset: Dataset,
    indices: Sequence[int],
) -> dict[str, dict[str, Any]]:
    """Evaluate models on the same images by the config's own evaluator.

    Args:
        cfg: The config of a segmentor or classifier.
        models: By name; the first is what the others are compared with.
        dataset: The config's validation data.
        indices: Images of it to evaluate on.

    Returns:
        By name a dict with ``metrics`` and ``agreement``, the share of the
        pixels or images for which the class is that of the first model.

    Raises:
        ConfigError: If the config evaluates something else, or an image is of
            a size that a graph does not take.
    """
    evaluator = cfg.get('val_evaluator') or cfg.get('test_evaluator')
    if not evaluator:
        raise ConfigError('the config has no val_evaluator to measure with')
    evaluators = {name: Evaluator(evaluator) for name in models}
    for each in evaluators.values():
        each.dataset_meta = getattr(dataset, 'metainfo', None)
    equal, total = dict.fromkeys(models, 0), 0
    for batch in dataset_batches(cfg, dataset, indices):
        reference = None
        for name, model in models.items():
            outputs = model.val_step(batch)
            classes = _classes(outputs)
            reference = classes if reference is None else reference
            equal[name] += sum(
                int((a == b).sum()) for a, b in zip(classes, reference)
            )
            evaluators[name].process(data_samples=outputs, data_batch=batch)
        total += sum(each.numel() for each in reference)
    return {
        name: dict(
            metrics={
                key: float(value)
                for key, value in each.evaluate(len(indices)).items()
            },
            agreement=equal[name] / total,
        )
        for name, each in evaluators.items()
    }


def _classes(outputs: Sequence) -> list[Tensor]:
    """Predicted class of every image or pixel."""
    if isinstance(outputs[0], Tensor):
        return [logits.argmax(-1) for logits in outputs]
    if not hasattr(outputs[0], 'pred_sem_seg'):
        raise ConfigError(
            'accuracy is compared for segmentors and classifiers only, whose '
            'evaluators accept part of the data: leave --check-images out'
        )
    return [sample.pred_sem_seg.data for sample in outputs]
