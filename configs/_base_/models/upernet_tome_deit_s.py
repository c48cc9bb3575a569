# UperNet on DeiT-Small whose similar tokens merge (ToMe): a peer in
# comparisons of speed. Its tokens form no grid, so that maps are whole before
# the pyramid; pyramid and heads are those of upernet_deit_s.py.
_base_ = './upernet_deit_s.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmvitcompress.ToMeViT',
        arch='deit_small',
        img_size=(512, 512),
        out_indices=(2, 5, 8, 11),
        drop_path_rate=0.1,
    ),
    neck=dict(
        _delete_=True,
        type='Feature2Pyramid',
        embed_dim=384,
        rescales=[4, 2, 1, 0.5],
        norm_cfg=_base_.norm_cfg,
    ),
)
