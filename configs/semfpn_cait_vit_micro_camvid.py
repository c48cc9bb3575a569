# Semantic FPN on a small ViT with merged tokens and pruned channels (CAIT),
# CamVid at half its size. The backbone comes from tools/train.py
# configs/imagenet/cait_vit_micro_tiny_imagenet_20.py and
# tools/export_pruned.py.
_base_ = './semfpn_dense_vit_micro_camvid.py'
model = dict(
    backbone=dict(
        type='mmvitcompress.CAITDeiT',
        token_merging=dict(layers=(4, 6)),
        checkpoint='checkpoints/cait_vit_micro_tiny_imagenet_20.pth',
    )
)
