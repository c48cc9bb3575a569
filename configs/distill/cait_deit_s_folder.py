# CAIT without labels: 55 % of the MACs, most of them by two merges, the rest
# by channels.
_base_ = './cdcp_deit_s_folder.py'
model = dict(backbone=dict(token_merging=dict(layers=(5, 8))))
custom_hooks = _base_.custom_hooks
custom_hooks[0].update(target=0.55, increment=0.0025)
