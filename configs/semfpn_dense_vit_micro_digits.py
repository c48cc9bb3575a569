# Semantic FPN finds handwritten digits in scenes made by tools/make_digits.py:
# minutes on a laptop, from random weights. The control.
_base_ = [
    './_base_/models/semfpn_vit_micro.py',
    './_base_/datasets/digits_ink.py',
    './_base_/schedules/digits_200.py',
    './_base_/default_runtime.py',
]
