# Every token method, as rows of a table: what each changes in a dense plain
# ViT, as --cfg-options does. Those with a method are planned for the table's
# target; the others are at the MACs of ATME before blocks 5 and 8, or as near
# as they come.
merged = 'model.backbone.token_merging'
matched = 'model.backbone.token_matching'
learning = {'model.backbone.soft_slimming': True}
rows = {
    # CAIT's Table IX: neighbours or similar tokens
    'ATME': {merged: dict(layers=(5, 8))},
    'ToMe': dict(method='token_matching'),
    'ToMe-same-layers': {matched: dict(layers=(5, 8))},
    # X: which neighbours
    'horizontal': {merged: dict(layers=(5, 8), directions='horizontal')},
    'vertical': {merged: dict(layers=(5, 8), directions='vertical')},
    'diagonal': {merged: dict(layers=(5, 8), directions='diagonal')},
    'symmetric': {merged: dict(layers=(7,), directions='symmetric')},
    # XV: what leaves, and how it is chosen
    'DiffRate': dict(method='token_rates'),
    'EViT': {
        'method': 'token_reorganization',
        'custom_hooks': [dict(type='mmvitcompress.KeepRateHook')],
    },
    'DynamicViT': {
        'method': 'token_sparsification',
        'optim_wrapper.paramwise_cfg.predictor': dict(lr=1e-3),
        **learning,
    },
    'Evo-ViT': {
        'method': 'token_evolution',
        'model.backbone.token_evolution.stages': (5, 9),
        'custom_hooks': [dict(type='mmvitcompress.TokenStageHook')],
    },
    'A-ViT': dict(method='token_halting'),
    'LFE': dict(method='token_energy'),
    'life-regression': dict(method='patch_slimming', **learning),
}
