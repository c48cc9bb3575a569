"""Metrics."""

from mmvitcompress.evaluation.accuracy import TopKAccuracy
from mmvitcompress.evaluation.dice import DiceMetric
from mmvitcompress.evaluation.feature_error import FeatureError

__all__ = ['DiceMetric', 'FeatureError', 'TopKAccuracy']
