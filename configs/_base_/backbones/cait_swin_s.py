# Swin-Small with merged tokens and pruned channels (CAIT); made by:
# tools/train.py configs/imagenet/cait_swin_s_in1k.py, then
# tools/export_pruned.py
#
# The checkpoint brings widths and merges of its own. Those named here (45.1 %
# fewer MACs at 224 px; the target is 45 %) stand in where figures are wanted
# without weights: --cfg-options model.backbone.checkpoint=None
backbone = dict(
    type='mmvitcompress.CompressedSwin',
    arch=dict(
        _delete_=True,
        base='swin_small',
        qk_dims=24,
        v_dims=32,
        mlp_dims=[320] * 2 + [640] * 2 + [1280] * 18 + [2560] * 2,
        token_merging=dict(layers=(7, 13)),
    ),
    checkpoint='checkpoints/cait_swin_small_in1k.pth',
)
