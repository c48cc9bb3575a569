# ATME: tokens merge before blocks 5 and 7, half of the backbone's MACs. Merges
# start as means of a pretrained ViT's tokens and learn in the task; a merged
# token stands at the mean of the positions that it covers.
_base_ = './semfpn_dense_dinov3_s_ade20k.py'
model = dict(backbone=dict(token_merging=dict(layers=(5, 7))))
