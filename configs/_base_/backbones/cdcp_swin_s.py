# Swin-Small with pruned channels (CDCP); made by: tools/train.py
# configs/imagenet/cdcp_swin_s_in1k.py, then tools/export_pruned.py
#
# The checkpoint brings widths of its own. Those named here (27.0 % fewer MACs
# at 224 px; the target is 26.7 %) stand in where figures are wanted without
# weights: --cfg-options model.backbone.checkpoint=None
backbone = dict(
    type='mmvitcompress.CompressedSwin',
    arch=dict(
        _delete_=True,
        base='swin_small',
        qk_dims=24,
        v_dims=24,
        mlp_dims=[272] * 2 + [544] * 2 + [1088] * 18 + [2176] * 2,
    ),
    checkpoint='checkpoints/cdcp_swin_small_in1k.pth',
)
