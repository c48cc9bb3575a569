"""A trained model that takes loaded images.

Segmentors and detectors run in OpenMMLab's own inferencers, which know how
images are prepared and drawn; building and loading is done here, strictly.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from timm.data import create_transform

from mmvitcompress.analysis.candidates import choose_device
from mmvitcompress.checkpoints.file import read_checkpoint
from mmvitcompress.datasets.palettes import class_palette
from mmvitcompress.engine.build import build, fit
from mmvitcompress.engine.config import read_config
from mmvitcompress.errors import ConfigError
from mmvitcompress.inference.classes import metainfo, name_classes
from mmvitcompress.utils.checks import check_choice
from mmvitcompress.utils.images import to_pil

TASKS = {
    'mmseg': 'segmentation',
    'mmdet': 'detection',
    'mmvitcompress': 'classification',
}
"""What a model predicts, by the ``default_scope`` of its config."""


def deployed_config(
    config: str | Path | Config, checkpoint: str | Path
) -> Config:
    """A config that builds a trained model without any other file.

    The backbone's shape comes from the checkpoint, not from the file that
    training started from. ``mmseg.apis.init_model``, ``MMSegInferencer``,
    ``mmdet.apis.init_detector`` and ``DetInferencer`` take it in place of the
    config's path.

    Args:
        config: Config of the run, or its path.
        checkpoint: Checkpoint that the run wrote.

    Raises:
        ConfigError: If the config can't be read.
        CheckpointError: If the checkpoint can't be read, or holds no whole
            model.
    """
    cfg = _config(config)
    fit(cfg.model, read_checkpoint(checkpoint), 'predict')
    return cfg


def _config(config: str | Path | Config) -> Config:
    cfg = deepcopy(config)
    if not isinstance(config, Config):
        cfg = read_config(str(config))
    if 'model' not in cfg or 'backbone' not in cfg.model:
        raise ConfigError('the config has no model with a backbone')
    return cfg


class Predictor:
    """A trained model that takes loaded images.

    Args:
        config: Config of the model, or its path.
        checkpoint: Its weights, loaded strictly.
        device: Such as 'cuda:0'. Defaults to CUDA where there is one.
        classes: Their names. Defaults to those that the checkpoint or the
            config's data set knows, else numbers.

    Attributes:
        task: 'segmentation', 'detection' or 'classification'.
        inferencer: MMSegmentation's or MMDetection's; None of a classifier.
        palette: A colour (R, G, B) for each of them.
        color_type: How images are to be loaded, in MMCV's terms.

    Raises:
        ConfigError: If the config can't be read or isn't one of these tasks,
            or the device can't be used.
        CheckpointError: If the checkpoint can't be read or is of another
            model.
    """

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path,
        device: str | None = None,
        classes: Sequence[str] | None = None,
    ):
        self.device = choose_device(device)
        cfg = _config(config)
        scope = cfg.get('default_scope')
        check_choice(
            'default_scope, which tells what is predicted,', scope, TASKS
        )
        self.task = TASKS[scope]
        stored = read_checkpoint(checkpoint)
        self.model = build(cfg, checkpoint, 'predict').to(self.device)
        dataset = _dataset(cfg)
        known = stored.meta.get('dataset_meta') or metainfo(dataset)
        names = classes or known.get('classes')
        self.classes = name_classes(self.model, dataset, names)
        self.palette = known.get('palette') or class_palette(self.classes)
        self.color_type, self.inferencer = 'color', None
        if self.task == 'classification':
            self._transform = create_transform(**dataset.get('transform', {}))
            return
        load = _take_images(dataset)
        self.color_type = load.get('color_type', 'color')
        self.model.dataset_meta = dict(
            classes=self.classes, palette=self.palette
        )
        self.inferencer = self._make_inferencer(dataset)

    def _make_inferencer(self, dataset: Mapping):
        """The library's own, of the model that there is."""
        if self.task == 'segmentation':
            from mmseg.apis import MMSegInferencer as Library

            scope, visualizer = 'mmseg', 'SegLocalVisualizer'
        else:
            from mmdet.apis import DetInferencer as Library

            scope, visualizer = 'mmdet', 'DetLocalVisualizer'
        model = self.model

        class Inferencer(Library):
            def _init_model(self, *args):
                return model

            def _init_collate(self, cfg):  # warns of scopes without reason
                return pseudo_collate

        loader, drawing = dict(dataset=dataset), dict(type=visualizer)
        cfg = dict(model={}, test_dataloader=loader, visualizer=drawing)
        return Inferencer(Config(cfg), device=str(self.device), scope=scope)

    @torch.no_grad()
    def __call__(self, images: Sequence[np.ndarray]) -> list:
        """Predict on a batch.

        Args:
            images: (H, W, 3) each, uint8, in BGR, of one size.

        Returns:
            For each image a data sample of MMSegmentation or MMDetection on
            the model's device; of a classifier, probabilities (classes).
        """
        if self.task == 'classification':
            views = [self._transform(to_pil(image)) for image in images]
            logits = self.model(torch.stack(views).to(self.device))
            return list(logits.float().softmax(-1))
        views = [self.inferencer.pipeline(image) for image in images]
        return self.inferencer.forward(pseudo_collate(views))


def _dataset(cfg: Config) -> dict:
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if not loader:
        raise ConfigError(
            'the config has no test_dataloader, whose transforms prepare '
            'images'
        )
    return loader.dataset


def _take_images(dataset: dict) -> dict:
    """Let the pipeline take images without annotations, in place; returns
    its step that loads images."""
    steps = dataset.get('pipeline') or []
    steps = [step for step in steps if 'Annotations' not in step['type']]
    dataset['pipeline'] = steps
    for step in steps:
        if step['type'].rpartition('.')[2] == 'LoadImageFromFile':
            step['type'] = 'LoadImageFromFile'
            return step
    raise ConfigError(
        'the config has no test_dataloader.dataset.pipeline that begins with '
        'LoadImageFromFile'
    )
