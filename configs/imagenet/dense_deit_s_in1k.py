# DeiT-Small, fine-tuned as long as the compressed models and with the same
# teacher, itself: the control that they are compared with.
_base_ = [
    '../_base_/models/classifier_deit_s.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/finetune_300e.py',
    '../_base_/default_runtime_cls.py',
]
