# The CASCADE decoder, DeiT-Small with pruned channels (CDCP), Synapse.
_base_ = [
    './cascade_dense_deit_s_synapse.py',
    './_base_/backbones/cdcp_deit_s.py',
]
model = dict(backbone=_base_.backbone)
