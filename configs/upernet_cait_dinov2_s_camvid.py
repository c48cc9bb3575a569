# CAIT in the task itself: merges before blocks 5 and 8, and channels that
# vanish, half of the MACs together.
_base_ = './upernet_cdcp_dinov2_s_camvid.py'
model = dict(backbone=dict(token_merging=dict(layers=(5, 8))))
