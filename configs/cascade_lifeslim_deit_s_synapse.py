# The CASCADE decoder, DeiT-Small with patches that leave (life
# regression), Synapse.
_base_ = [
    './cascade_dense_deit_s_synapse.py',
    './_base_/backbones/lifeslim_deit_s.py',
]
model = dict(backbone=_base_.backbone)
