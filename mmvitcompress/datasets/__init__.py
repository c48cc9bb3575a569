"""Data sets. Those for mmseg and mmdet are registered where these are."""
