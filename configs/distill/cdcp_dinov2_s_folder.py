# CDCP without labels: half of the MACs by pruned channels alone, on images of
# your own.
_base_ = [
    '../_base_/models/distill_dinov2_s.py',
    '../_base_/schedules/distill_4k.py',
    '../_base_/schedules/cdcp_4k.py',
]
model = dict(backbone=dict(compactors=True))
