# CAIT in the task itself: merges before blocks 6 and 9, and channels that
# vanish (of queries and keys by pairs that rotary positions turn), half of the
# MACs together. tools/export_pruned.py makes the small model.
_base_ = [
    './upernet_dense_dinov3_s_folder.py',
    './_base_/schedules/cdcp_20k.py',
]
model = dict(backbone=dict(compactors=True, token_merging=dict(layers=(6, 9))))
