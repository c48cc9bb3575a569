# ATME: tokens merge before blocks 5 and 7, half of the backbone's MACs. Merges
# start as means of a pretrained ViT's tokens and learn in the task.
_base_ = './upernet_dense_dinov2_s_folder.py'
model = dict(backbone=dict(token_merging=dict(layers=(5, 7))))
