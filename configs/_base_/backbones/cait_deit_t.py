# DeiT-Tiny with merged tokens and pruned channels (CAIT); made by:
# tools/train.py configs/imagenet/cait_deit_t_in1k.py, then
# tools/export_pruned.py
#
# The checkpoint brings widths and merges of its own. Those named here, about
# the size that the paper reports (0.6 G MACs and 5.1 M parameters at 224 px),
# stand in where figures are wanted without weights:
# --cfg-options model.backbone.checkpoint=None
backbone = dict(
    type='mmvitcompress.CAITDeiT',
    arch=dict(
        _delete_=True,
        base='deit_tiny',
        qk_dims=56,
        v_dims=64,
        mlp_dims=640,
        token_merging=dict(layers=(5, 8)),
    ),
    checkpoint='checkpoints/cait_deit_tiny_in1k.pth',
)
