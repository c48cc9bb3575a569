# As tuned_dense_dinov2_s_camvid.py with images of twice the side, 672x504, in
# crops and windows of 252x336: an iteration costs the same, and a patch covers
# a quarter of what it covers there.
_base_ = './tuned_dense_dinov2_s_camvid.py'
scale = (672, 504)

train_pipeline = _base_.train_pipeline
train_pipeline[2].update(scale=scale)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=scale)
model = dict(
    # 2 x 3 windows
    test_cfg=dict(mode='slide', crop_size=_base_.crop_size, stride=(252, 168)),
)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
