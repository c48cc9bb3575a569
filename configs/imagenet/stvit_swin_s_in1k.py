# STViT-R: Swin-Small, with three dumbbell units; see stvit_swin_t_in1k.py.
_base_ = './stvit_swin_t_in1k.py'

model = dict(
    backbone=dict(
        arch='swin_small',
        semantic_tokens=dict(layers=(2, 8, 14)),
        drop_path_rate=0.3,
    ),
)
