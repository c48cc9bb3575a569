# DeiT-Small as a classifier that is taught by itself, uncompressed (CAIT,
# Table II). Other models override arch and checkpoint.
checkpoint = 'checkpoints/deit_small_in1k.pth'  # tools/convert_checkpoint.py
backbone = dict(type='CompressedViT', arch='deit_small', checkpoint=checkpoint)

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='MixupPreprocessor',
        mixup_alpha=0.8,
        cutmix_alpha=1.0,
        label_smoothing=0.1,
        num_classes=1000,
    ),
    backbone=backbone,
    num_classes=1000,
    distillation=dict(
        alpha=0.25,
        teacher=dict(
            type='ImageClassifier', backbone=backbone, num_classes=1000
        ),
    ),
)
