"""Heads of classifiers; those of MMSegmentation are imported when named."""

from mmvitcompress.models.heads.class_token import ClassTokenHead

__all__ = ['ClassTokenHead']
