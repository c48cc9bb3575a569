# Mask R-CNN finds cell nuclei, on DINOv2's ViT-Small without compression: the
# control. 8 epochs x 72 iterations = 576, on two cores.
#
# Images are 1.75 times as large as in mask_rcnn_dense_vit_micro_nuclei.py, so
# that strides and anchors are the same on the cells; heads are that one's.
_base_ = [
    './_base_/models/mask_rcnn_vit_micro.py',
    './_base_/datasets/nuclei_instances.py',
    './_base_/default_runtime_det.py',
    './_base_/schedules/adamw_micro_det.py',
]
strides = [3.5, 7, 14, 28]
scale, crop_size, epochs = (560, 448), (224, 224), 8
regions = dict(featmap_strides=strides)
model = dict(
    data_preprocessor=dict(pad_size_divisor=28),
    # made by: tools/convert_checkpoint.py vit_small_patch14_dinov2.lvd142m
    #   checkpoints/dinov2_small.pth
    backbone=dict(
        arch='dinov2_small',
        img_size=(448, 560),
        out_indices=(2, 5, 8, 11),
        drop_path_rate=0.1,
        checkpoint='checkpoints/dinov2_small.pth',
    ),
    neck=dict(embed_dim=384),
    rpn_head=dict(anchor_generator=dict(strides=[*strides, 56])),
    roi_head=dict(bbox_roi_extractor=regions, mask_roi_extractor=regions),
)

train_pipeline = _base_.train_pipeline
train_pipeline[2].update(scale=scale)  # RandomResize
train_pipeline[3].update(crop_size=crop_size)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=scale)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(
    optimizer=dict(lr=5e-4), paramwise_cfg=dict(layer_decay=0.75)
)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=epochs)
train_cfg = dict(max_epochs=epochs, val_interval=4)
