# DeiT-Base at batch 128; see dense_deit_s_in1k.py.
_base_ = './dense_deit_s_in1k.py'
checkpoint = 'checkpoints/deit_base_in1k.pth'
backbone = dict(arch='deit_base', checkpoint=checkpoint)

model = dict(
    backbone=backbone,
    distillation=dict(teacher=dict(backbone=backbone)),
)

train_dataloader = dict(batch_size=128)
auto_scale_lr = dict(base_batch_size=128)
