# Mask R-CNN finds cell nuclei: a quarter of an hour on one CPU core, from
# random weights. The control.
_base_ = [
    './_base_/models/mask_rcnn_vit_micro.py',
    './_base_/datasets/nuclei_instances.py',
    './_base_/default_runtime_det.py',
    './_base_/schedules/adamw_micro_det.py',
]
