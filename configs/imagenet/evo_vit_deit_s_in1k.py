# Evo-ViT: from block 5 on half of DeiT-Small's patches take the slow way,
# chosen in each block at first, and in two stages from epoch 200 on.
_base_ = './dense_deit_s_in1k.py'

model = dict(
    backbone=dict(
        token_evolution=dict(first=5, keep_rate=0.5, stages=(5, 9)),
    ),
)
custom_hooks = [dict(type='TokenStageHook', begin=2 / 3)]
