# As upernet_lifeslim_deit_s_ade20k.py, but with a learned token in place of
# patches that have left ("unstructured"): the baseline.
_base_ = './upernet_lifeslim_deit_s_ade20k.py'
model = dict(
    neck=[
        dict(
            type='mmvitcompress.UnmergeUpsample',
            fill='mask_token',
            in_channels=[384] * 4,
        ),
        dict(
            type='Feature2Pyramid',
            embed_dim=384,
            rescales=[4, 2, 1, 0.5],
            norm_cfg=_base_.norm_cfg,
        ),
    ],
)
find_unused_parameters = True  # no patch has left in the first output
