# Linear probe of DINOv2's ViT-S with merged tokens, frozen, on images of your
# own: what merges keep without any training.
_base_ = './linear_dense_dinov2_s_folder.py'
model = dict(backbone=dict(token_merging=dict(layers=(5, 8))))
