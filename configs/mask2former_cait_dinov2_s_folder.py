# CAIT in the task itself: merges before blocks 6 and 9, and channels that
# vanish, half of the MACs together.
_base_ = './mask2former_cdcp_dinov2_s_folder.py'
model = dict(backbone=dict(token_merging=dict(layers=(6, 9))))
