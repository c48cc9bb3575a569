# CamVid at 0.7 of its size, 336x252: 24 x 18 patches of 14 pixels. Scores are
# those of the labels in full size. The rest is as in camvid.py.
_base_ = './camvid.py'
crop_size = (252, 336)
scale = (336, 252)

train_pipeline = _base_.train_pipeline
train_pipeline[2].update(scale=scale, ratio_range=(0.75, 1.5))
train_pipeline[3].update(crop_size=crop_size)
# labels are loaded after it and not resized
resize = dict(type='Resize', scale=scale, keep_ratio=True)
test_pipeline = [_base_.test_pipeline[0], resize, *_base_.test_pipeline[1:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
