# VTC-LFC: LFE's tokens, and channels by how much the loss on low-pass filtered
# images changes with them: 54.4 % fewer MACs.
_base_ = './lfe_deit_s_in1k.py'

model = dict(backbone=dict(compactors=True))
custom_hooks = [
    dict(
        type='PruningHook',
        target=0.544,
        criterion='lfs',
        num_classes=1000,
        warmup_epochs=30,
        settle_epochs=100,
        rules=dict(divisor=8),
    ),
]
