"""What training runs need besides a model."""

from mmvitcompress.engine.hooks.atomic_checkpoint import AtomicCheckpointHook
from mmvitcompress.engine.hooks.cdcp import CDCPHook
from mmvitcompress.engine.hooks.classification_checks import (
    ClassificationCheckHook,
)
from mmvitcompress.engine.hooks.finite import FiniteHook
from mmvitcompress.engine.hooks.life_regression import LifeRegressionHook
from mmvitcompress.engine.hooks.loading import ResumeCheckHook, StrictLoadHook
from mmvitcompress.engine.hooks.pruning import PruningHook
from mmvitcompress.engine.hooks.records import (
    ArchMetaHook,
    AuxiliaryLossHook,
    MeanLossHook,
)
from mmvitcompress.engine.hooks.rng_state import RNGStateHook
from mmvitcompress.engine.hooks.task_teacher import TaskTeacherHook
from mmvitcompress.engine.hooks.token_schedules import (
    KeepRateHook,
    TokenRateHook,
    TokenStageHook,
)

__all__ = [
    'ArchMetaHook',
    'AtomicCheckpointHook',
    'AuxiliaryLossHook',
    'CDCPHook',
    'ClassificationCheckHook',
    'FiniteHook',
    'KeepRateHook',
    'LifeRegressionHook',
    'MeanLossHook',
    'PruningHook',
    'RNGStateHook',
    'ResumeCheckHook',
    'StrictLoadHook',
    'TaskTeacherHook',
    'TokenRateHook',
    'TokenStageHook',
]
