"""Whole models of ours; heads of MMSegmentation are imported when named."""

from mmvitcompress.models.heads.feature_distiller import FeatureDistiller
from mmvitcompress.models.heads.image_classifier import ImageClassifier

__all__ = ['FeatureDistiller', 'ImageClassifier']
