# CDCP in the task itself: half of the MACs go by channels alone, while the
# segmentor learns.
_base_ = [
    './tuned_dense_dinov2_s_camvid.py',
    './_base_/schedules/cdcp_320.py',
]
model = dict(backbone=dict(compactors=True))
