"""Classifiers; heads of MMSegmentation are imported when named."""

from mmvitcompress.models.heads.image_classifier import ImageClassifier

__all__ = ['ImageClassifier']
