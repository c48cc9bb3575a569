# UperNet, DeiT-Small as MMSegmentation's own VisionTransformer, ADE20K
# 512x512: what to compare speed with. Recipe, pyramid and heads are those of
# upernet_dense_deit_s_ade20k.py; for weights set model.backbone.init_cfg.
_base_ = [
    './_base_/models/upernet_mmseg_vit_deit_s.py',
    './_base_/datasets/ade20k.py',
    './_base_/schedules/adamw_160k.py',
    './_base_/default_runtime.py',
]
