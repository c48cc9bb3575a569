# Merged tokens (ATME): halved before blocks 5 and 9, half of the backbone's
# MACs at 1333x800.
_base_ = './mask_rcnn_dense_dinov3_s_coco.py'
model = dict(backbone=dict(token_merging=dict(layers=(5, 9))))
