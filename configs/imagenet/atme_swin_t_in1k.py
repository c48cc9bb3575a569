# ATME: Swin-Tiny with merged tokens, from scratch for 300 epochs (Table XVII)
# by Swin's own recipe. Blocks are those of stage 3. To start from a dense one
# instead: --cfg-options model.backbone.checkpoint=FILE, and lower the rate.
_base_ = [
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/swin_300e.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='MixupPreprocessor',
        mixup_alpha=0.8,
        cutmix_alpha=1.0,
        label_smoothing=0.1,
        num_classes=1000,
    ),
    backbone=dict(
        type='CompressedSwin',
        arch='swin_tiny',
        token_merging=dict(layers=(5, 6)),
        drop_path_rate=0.2,
        checkpoint=None,
    ),
    num_classes=1000,
)
