# ATME: DeiT-Small with merged tokens from scratch, taught by the dense one, to
# compare with dense models of its size: scratch_half_{depth,width}_*.
_base_ = [
    '../_base_/models/classifier_deit_s.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/scratch_600e.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        token_merging=dict(layers=(5, 8)),
        drop_path_rate=0.1,
        checkpoint=None,
    ),
)
