# Mask R-CNN on cell nuclei with merged tokens and narrower blocks (CAIT), from
# random weights as its controls: 56 % fewer MACs. A pruned checkpoint, set as
# model.backbone.checkpoint, brings merges and widths of its own.
_base_ = './mask_rcnn_dense_vit_micro_nuclei.py'
model = dict(
    backbone=dict(
        type='mmvitcompress.CAITDeiT',
        arch=dict(
            _delete_=True,
            base='vit_micro',
            qk_dims=24,
            v_dims=32,
            mlp_dims=336,
            token_merging=dict(layers=(3, 6)),
        ),
    )
)
