# ATME: Swin-Small; see atme_swin_t_in1k.py.
_base_ = './atme_swin_t_in1k.py'

model = dict(
    backbone=dict(
        arch='swin_small',
        token_merging=dict(layers=(7, 13)),
        drop_path_rate=0.3,
    ),
)
