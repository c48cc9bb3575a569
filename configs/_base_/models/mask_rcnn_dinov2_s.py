# Mask R-CNN on DINOv2's ViT-Small. Patches of 14 pixels make a pyramid of
# strides 3.5, 7, 14 and 28; images are padded so that all of them fit.
_base_ = './mask_rcnn_deit_s.py'
strides = [3.5, 7, 14, 28]
regions = dict(featmap_strides=strides)
model = dict(
    data_preprocessor=dict(pad_size_divisor=28),
    # made by: tools/convert_checkpoint.py vit_small_patch14_dinov2.lvd142m
    #   checkpoints/dinov2_small.pth
    backbone=dict(
        arch='dinov2_small', checkpoint='checkpoints/dinov2_small.pth'
    ),
    rpn_head=dict(anchor_generator=dict(strides=[*strides, 56])),
    roi_head=dict(bbox_roi_extractor=regions, mask_roi_extractor=regions),
)
