"""Overrides that make the heads of configs small."""

from golden_case import DIM, SWIN_DIMS

SEMFPN = {
    'neck.embed_dim': DIM,
    'neck.out_channels': 16,
    'decode_head.in_channels': [16] * 4,
    'decode_head.channels': 16,
    'decode_head.num_classes': 5,
}
STOCK_SEMFPN = {
    'neck.0.embed_dim': DIM,
    'neck.1.in_channels': [DIM] * 4,
    'neck.1.out_channels': 16,
    'decode_head.in_channels': [16] * 4,
    'decode_head.channels': 16,
    'decode_head.num_classes': 5,
}
UPER_HEADS = {
    'decode_head.in_channels': [DIM] * 4,
    'decode_head.channels': 16,
    'decode_head.num_classes': 5,
    'auxiliary_head.in_channels': DIM,
    'auxiliary_head.channels': 16,
    'auxiliary_head.num_classes': 5,
}
UPERNET = {'neck.embed_dim': DIM, **UPER_HEADS}
SWIN_UPERNET = UPER_HEADS | {
    'decode_head.in_channels': SWIN_DIMS,
    'auxiliary_head.in_channels': SWIN_DIMS[2],
}
CASCADE = {
    'neck.embed_dim': DIM,
    'decode_head.in_channels': [DIM] * 4,
    'decode_head.widths': (8, 12, 16, 24),
}
MASK2FORMER = {
    'neck.embed_dim': DIM,
    'decode_head.in_channels': [DIM] * 4,
    'decode_head.pixel_decoder.encoder.num_layers': 1,
    'decode_head.transformer_decoder.num_layers': 2,
    'decode_head.num_queries': 10,
}
MASK2FORMER_INSTANCES = {
    key.replace('decode_head', 'panoptic_head'): value
    for key, value in MASK2FORMER.items()
}
RPN = {
    'rpn_head.in_channels': 16,
    'rpn_head.feat_channels': 16,
    'roi_head.bbox_roi_extractor.out_channels': 16,
    'roi_head.mask_roi_extractor.out_channels': 16,
    'roi_head.mask_head.in_channels': 16,
    'roi_head.mask_head.conv_out_channels': 16,
    'roi_head.mask_head.num_classes': 5,
}
MASK_RCNN = RPN | {
    'neck.embed_dim': DIM,
    'neck.out_channels': 16,
    'roi_head.bbox_head.in_channels': 16,
    'roi_head.bbox_head.fc_out_channels': 32,
    'roi_head.bbox_head.num_classes': 5,
}
STOCK_MASK_RCNN = {
    key: value for key, value in MASK_RCNN.items() if 'neck' not in key
} | {
    'neck.0.embed_dim': DIM,
    'neck.1.in_channels': [DIM] * 4,
    'neck.1.out_channels': 16,
}
CASCADE_MASK_RCNN = RPN | {
    'neck.1.in_channels': SWIN_DIMS,
    'neck.1.out_channels': 16,
    **{
        f'roi_head.bbox_head.{stage}.{key}': value
        for stage in range(3)
        for key, value in (
            ('in_channels', 16),
            ('conv_out_channels', 16),
            ('fc_out_channels', 32),
            ('num_classes', 5),
        )
    },
}
CLASSES = {'num_classes': 10, 'data_preprocessor': None}
