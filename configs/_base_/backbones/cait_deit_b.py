# DeiT-Base with merged tokens and pruned channels (CAIT); made by:
# tools/train.py configs/imagenet/cait_deit_b_in1k.py, then
# tools/export_pruned.py
#
# The checkpoint brings widths and merges of its own. Those named here, about
# the size that the paper reports (7.4 G MACs and 71.3 M parameters at 224 px),
# stand in where figures are wanted without weights:
# --cfg-options model.backbone.checkpoint=None
backbone = dict(
    type='mmvitcompress.CAITDeiT',
    arch=dict(
        _delete_=True,
        base='deit_base',
        qk_dims=40,
        v_dims=40,
        mlp_dims=2688,
        token_merging=dict(layers=(4, 8)),
    ),
    checkpoint='checkpoints/cait_deit_base_in1k.pth',
)
