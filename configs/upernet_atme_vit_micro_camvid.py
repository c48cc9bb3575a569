# UperNet on a small ViT with merged tokens (ATME), CamVid at half its size.
# The backbone comes from tools/train.py
# configs/imagenet/atme_vit_micro_tiny_imagenet_20.py and
# tools/export_pruned.py.
_base_ = './upernet_dense_vit_micro_camvid.py'
model = dict(
    backbone=dict(
        type='mmvitcompress.ATMEDeiT',
        token_merging=dict(layers=(3, 5, 7)),
        checkpoint='checkpoints/atme_vit_micro_tiny_imagenet_20.pth',
    )
)
