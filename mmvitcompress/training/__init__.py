"""What training runs need besides a model: hooks, and how to launch one."""

from mmvitcompress.training.accuracy import TopKAccuracy
from mmvitcompress.training.arch_meta import ArchMetaHook
from mmvitcompress.training.atomic_checkpoint import AtomicCheckpointHook
from mmvitcompress.training.cdcp import CDCPHook
from mmvitcompress.training.classification_checks import (
    ClassificationCheckHook,
)
from mmvitcompress.training.dice import DiceMetric
from mmvitcompress.training.life_regression import LifeRegressionHook
from mmvitcompress.training.mean_loss import MeanLossHook
from mmvitcompress.training.optimizers import ViTOptimWrapperConstructor
from mmvitcompress.training.rng_state import RNGStateHook
from mmvitcompress.training.strict_loading import StrictLoadHook

__all__ = [
    'ArchMetaHook',
    'AtomicCheckpointHook',
    'CDCPHook',
    'ClassificationCheckHook',
    'DiceMetric',
    'LifeRegressionHook',
    'MeanLossHook',
    'RNGStateHook',
    'StrictLoadHook',
    'TopKAccuracy',
    'ViTOptimWrapperConstructor',
]
