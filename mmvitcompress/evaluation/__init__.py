"""Metrics."""

from mmvitcompress.evaluation.accuracy import TopKAccuracy
from mmvitcompress.evaluation.dice import DiceMetric

__all__ = ['DiceMetric', 'TopKAccuracy']
