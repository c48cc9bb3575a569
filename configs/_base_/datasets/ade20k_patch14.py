# ADE20K in crops of 504x504, 36 x 36 patches of 14 pixels. The rest is as in
# ade20k.py.
_base_ = './ade20k.py'
crop_size = (504, 504)
train_pipeline = _base_.train_pipeline
train_pipeline[3].update(crop_size=crop_size)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
