# Merged tokens (ATME): halved before blocks 5 and 7, half of the backbone's
# MACs at 560x448.
_base_ = './mask_rcnn_dense_dinov2_s_nuclei.py'
model = dict(backbone=dict(token_merging=dict(layers=(5, 7))))
