# DeiT-Small whose patches leave when their lives are over (life regression):
# after each of three blocks 70 % of them stay; made by:
# tools/train.py configs/imagenet/lifeslim_deit_s_in1k.py, then
# tools/export_pruned.py
backbone = dict(
    type='mmvitcompress.LifeSlimDeiT',
    arch='deit_small',
    patch_slimming=dict(base_layer=4, layers=(4, 7, 10), keep_rate=0.7),
    checkpoint='checkpoints/lifeslim_deit_small_in1k.pth',
)
