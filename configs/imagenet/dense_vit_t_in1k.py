# ViT-Tiny of the augreg release; see dense_deit_s_in1k.py.
_base_ = [
    '../_base_/models/classifier_deit_s.py',
    '../_base_/datasets/imagenet_half.py',
    '../_base_/schedules/finetune_300e.py',
    '../_base_/default_runtime_cls.py',
]
checkpoint = 'checkpoints/vit_tiny_augreg_in21k_ft_in1k.pth'
backbone = dict(arch='vit_tiny', checkpoint=checkpoint)

model = dict(
    backbone=backbone,
    distillation=dict(alpha=0.1, teacher=dict(backbone=backbone)),
)
