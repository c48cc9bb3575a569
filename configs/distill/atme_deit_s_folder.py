# ATME without labels: merges before two blocks learn what the dense model
# says, on images of your own.
_base_ = [
    '../_base_/models/distill_deit_s.py',
    '../_base_/schedules/distill_4k.py',
]
model = dict(backbone=dict(token_merging=dict(layers=(5, 8))))
