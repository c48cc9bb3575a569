# CDCP in the task itself: half of the MACs go by channels, while the segmentor
# learns. tools/export_pruned.py makes the small model.
_base_ = [
    './semfpn_dense_dinov2_s_ade20k.py',
    './_base_/schedules/cdcp_160k.py',
]
model = dict(backbone=dict(compactors=True))
