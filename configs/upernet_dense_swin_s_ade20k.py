# UperNet, Swin-Small without compression, ADE20K 512x512: the control.
_base_ = './upernet_dense_swin_t_ade20k.py'
checkpoint = 'checkpoints/swin_small_in1k.pth'
model = dict(backbone=dict(arch='swin_small', checkpoint=checkpoint))
