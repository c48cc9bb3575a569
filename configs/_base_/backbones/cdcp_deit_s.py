# DeiT-Small with pruned channels (CDCP); made by:
# tools/train.py configs/imagenet/cdcp_deit_s_in1k.py, then
# tools/export_pruned.py
#
# The checkpoint brings widths of its own. Those named here, about the size
# that the paper reports (38.2 % fewer MACs and 13.8 M parameters at 224 px),
# stand in where figures are wanted without weights:
# --cfg-options model.backbone.checkpoint=None
backbone = dict(
    type='mmvitcompress.CDCPDeiT',
    arch=dict(
        _delete_=True,
        base='deit_small',
        qk_dims=40,
        v_dims=40,
        mlp_dims=928,
    ),
    checkpoint='checkpoints/cdcp_deit_small_in1k.pth',
)
