# Mask2Former finds handwritten digits in scenes made by tools/make_digits.py:
# minutes on a laptop, from random weights. The control.
_base_ = [
    './_base_/models/mask2former_vit_micro.py',
    './_base_/datasets/digits_ink.py',
    './_base_/schedules/digits_200.py',
    './_base_/default_runtime.py',
]
optim_wrapper = _base_.head_optim_wrapper
