"""Heads of classifiers; those of MMSegmentation are imported when named."""

from mmvitcompress.models.heads.class_token import ClassTokenHead
from mmvitcompress.models.heads.image_classifier import ImageClassifier

__all__ = ['ClassTokenHead', 'ImageClassifier']
