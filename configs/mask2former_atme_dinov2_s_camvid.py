# ATME: tokens merge before blocks 4 and 7, half of the backbone's MACs. Merges
# start as means of a pretrained ViT's tokens and learn in the task.
_base_ = './mask2former_dense_dinov2_s_camvid.py'
model = dict(backbone=dict(token_merging=dict(layers=(4, 7))))
