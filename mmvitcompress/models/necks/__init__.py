"""Necks that restore full maps, at once or as late as possible."""

from mmvitcompress.models.necks.guided import UnmergeGuided
from mmvitcompress.models.necks.pyramid import UnmergePyramid
from mmvitcompress.models.necks.upsample import UnmergeUpsample

__all__ = ['UnmergeGuided', 'UnmergePyramid', 'UnmergeUpsample']
