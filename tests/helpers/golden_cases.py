"""Models of all heads, methods and nets, small enough to run in float64."""

from golden_backbones import BACKBONES
from golden_case import DIM, MICRO, PRUNED_SWIN, Case, net, swin
from golden_heads import (
    CASCADE,
    CASCADE_MASK_RCNN,
    CLASSES,
    MASK2FORMER,
    MASK2FORMER_INSTANCES,
    MASK_RCNN,
    SEMFPN,
    STOCK_MASK_RCNN,
    STOCK_SEMFPN,
    SWIN_UPERNET,
    UPERNET,
)

CLASSIFIERS = {
    'micro': Case('imagenet/pretrain_vit_micro_digits', size=(32, 32)),
    'micro, atme': Case('imagenet/atme_vit_micro_digits', size=(32, 32)),
    'micro, cdcp': Case(
        'imagenet/cdcp_vit_micro_digits', size=(32, 32), train=True
    ),
    'micro, cait': Case(
        'imagenet/cait_vit_micro_tiny_imagenet_20', size=(64, 64)
    ),
    'micro, life regression': Case(
        'imagenet/lifeslim_vit_micro_digits', size=(32, 32), batch=2
    ),
    'micro, life regression, training': Case(
        'imagenet/lifeslim_vit_micro_digits',
        size=(32, 32),
        batch=2,
        train=True,
    ),
    'deit, cait': Case(
        'imagenet/cait_deit_s_in1k',
        net(img_size=112) | CLASSES,
        size=(112, 112),
    ),
    'deit, distilled': Case(
        'imagenet/dense_deit_s_in1k',
        net(img_size=112, dist_token=True) | CLASSES,
        size=(112, 112),
    ),
    'deit, life regression': Case(
        'imagenet/lifeslim_deit_s_in1k',
        net(img_size=112) | CLASSES,
        size=(112, 112),
        batch=2,
        train=True,
    ),
    'lvvit, atme': Case(
        'imagenet/atme_lvvit_s_in1k',
        {
            'backbone.arch': dict(
                embed_dim=DIM,
                depth=16,
                num_heads=3,
                mlp_dims=144,
                img_size=112,
                stem='conv',
                stem_dim=16,
                qkv_bias=False,
                skip_scale=2.0,
                norm_eps=1e-5,
            ),
            'auxiliary_head': False,
            **CLASSES,
        },
        size=(112, 112),
    ),
    'swin': Case(
        'imagenet/dense_swin_t_in1k', swin() | CLASSES, size=(112, 112)
    ),
    'swin, cait': Case(
        'imagenet/cait_swin_t_in1k',
        swin() | CLASSES,
        size=(112, 112),
        train=True,
    ),
}
SEGMENTORS = {
    'semfpn, micro': Case('semfpn_dense_vit_micro_digits'),
    'semfpn, micro, atme': Case('semfpn_atme_vit_micro_camvid'),
    'semfpn, micro, cait': Case(
        'semfpn_cait_vit_micro_camvid', {'backbone.arch': MICRO}, batch=2
    ),
    'semfpn, micro, cait, training': Case(
        'semfpn_cait_vit_micro_digits',
        {'backbone.arch': MICRO, 'decode_head.dropout_ratio': 0},
        train=True,
        batch=2,
    ),
    'semfpn, deit, cdcp': Case(
        'semfpn_cdcp_deit_s_ade20k', net('pruned') | SEMFPN, size=(96, 128)
    ),
    'semfpn, deit, life regression': Case(
        'semfpn_lifeslim_deit_s_ade20k',
        net() | SEMFPN,
        size=(96, 128),
        batch=2,
    ),
    'semfpn, deit, stock': Case(
        'semfpn_stock_deit_s_ade20k', net() | STOCK_SEMFPN, size=(96, 128)
    ),
    'semfpn, micro, resampled': Case(
        'semfpn_atme_vit_micro_digits',
        size=(72, 104),
        resampled=True,
        single='',
    ),
    'upernet, micro': Case('upernet_dense_vit_micro_camvid'),
    'upernet, micro, atme': Case('upernet_atme_vit_micro_nuclei'),
    'upernet, deit, cait': Case(
        'upernet_cait_deit_s_ade20k', net('pruned') | UPERNET, size=(96, 128)
    ),
    'upernet, deit, cdcp': Case(
        'upernet_cdcp_deit_s_potsdam', net('pruned') | UPERNET, size=(96, 128)
    ),
    'upernet, deit, life regression': Case(
        'upernet_lifeslim_deit_s_isaid',
        net() | UPERNET,
        size=(96, 128),
        batch=2,
    ),
    'upernet, deit, stock': Case(
        'upernet_stock_deit_s_ade20k', net() | UPERNET, size=(96, 128)
    ),
    'upernet, deit, training': Case(
        'upernet_atme_deit_s_ade20k',
        net()
        | UPERNET
        | {
            'backbone.drop_path_rate': 0.0,
            'decode_head.dropout_ratio': 0,
            'auxiliary_head.dropout_ratio': 0,
        },
        size=(96, 128),
        batch=2,
        train=True,
    ),
    'upernet, swin': Case(
        'upernet_dense_swin_t_ade20k', swin() | SWIN_UPERNET, size=(61, 106)
    ),
    'upernet, swin, atme': Case(
        'upernet_atme_swin_t_ade20k', swin() | SWIN_UPERNET, size=(96, 128)
    ),
    'upernet, swin, cait': Case(
        'upernet_cait_swin_t_ade20k',
        swin(PRUNED_SWIN, token_merging=dict(layers=(5, 6))) | SWIN_UPERNET,
        size=(96, 128),
    ),
    'mask2former, micro': Case(
        'mask2former_dense_vit_micro_digits', single='output'
    ),
    'mask2former, micro, atme': Case(
        'mask2former_atme_vit_micro_camvid', single='output'
    ),
    'mask2former, deit, life regression': Case(
        'mask2former_lifeslim_deit_s_ade20k',
        net() | MASK2FORMER,
        size=(64, 96),
        batch=2,
        single='output',
    ),
    'mask2former, deit, stock': Case(
        'mask2former_stock_deit_s_ade20k',
        net() | MASK2FORMER,
        size=(64, 96),
        single='output',
    ),
    'cascade, micro': Case('cascade_dense_vit_micro_digits', size=(64, 64)),
    'cascade, micro, atme': Case('cascade_atme_vit_micro_digits'),
    'cascade, deit, cait': Case(
        'cascade_cait_deit_s_synapse', net('pruned') | CASCADE, size=(96, 128)
    ),
    'cascade, deit, life regression': Case(
        'cascade_lifeslim_deit_s_polyp',
        net() | CASCADE,
        size=(96, 128),
        batch=2,
    ),
}
DETECTORS = {
    'mask rcnn, micro': Case('mask_rcnn_dense_vit_micro_digits'),
    'mask rcnn, micro, atme': Case('mask_rcnn_atme_vit_micro_nuclei'),
    'mask rcnn, micro, cait': Case(
        'mask_rcnn_cait_vit_micro_nuclei', {'backbone.arch': MICRO}
    ),
    'mask rcnn, deit, cdcp': Case(
        'mask_rcnn_cdcp_deit_s_coco',
        net('pruned') | MASK_RCNN,
        size=(96, 128),
    ),
    'mask rcnn, deit, life regression': Case(
        'mask_rcnn_lifeslim_deit_s_coco',
        net() | MASK_RCNN,
        size=(96, 128),
        batch=2,
    ),
    'mask rcnn, deit, stock': Case(
        'mask_rcnn_stock_deit_s_coco',
        net() | STOCK_MASK_RCNN,
        size=(96, 128),
    ),
    'cascade mask rcnn, swin': Case(
        'cascade_mask_rcnn_dense_swin_t_coco', swin() | CASCADE_MASK_RCNN
    ),
    'cascade mask rcnn, swin, atme': Case(
        'cascade_mask_rcnn_atme_swin_t_coco',
        swin() | CASCADE_MASK_RCNN,
        size=(96, 128),
    ),
    'cascade mask rcnn, swin, cdcp': Case(
        'cascade_mask_rcnn_cdcp_swin_t_coco',
        swin(PRUNED_SWIN) | CASCADE_MASK_RCNN,
        size=(96, 128),
    ),
    'mask2former, micro': Case(
        'mask2former_inst_dense_vit_micro_digits', single='output'
    ),
    'mask2former, micro, atme': Case(
        'mask2former_atme_vit_micro_nuclei', single='output'
    ),
    'mask2former, deit, cait': Case(
        'mask2former_cait_deit_s_coco',
        net('pruned') | MASK2FORMER_INSTANCES,
        size=(64, 96),
        single='output',
    ),
}
CASES = dict(
    backbones=BACKBONES,
    classifiers=CLASSIFIERS,
    segmentors=SEGMENTORS,
    detectors=DETECTORS,
)
