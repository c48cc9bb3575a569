# ATME: tokens merge before blocks 5 and 7, half of the backbone's MACs. Merges
# start as means of a pretrained ViT's tokens and learn in the task.
_base_ = './semfpn_dense_dinov2_s_ade20k.py'
model = dict(backbone=dict(token_merging=dict(layers=(5, 7))))
