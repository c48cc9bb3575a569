# Mask2Former finds cell nuclei, from random weights. The control. Queries
# learn slower than anchors: expect to need several times the 18 epochs that
# Mask R-CNN is content with.
_base_ = [
    './_base_/models/mask2former_instance_vit_micro.py',
    './_base_/datasets/nuclei_instances.py',
    './_base_/default_runtime_det.py',
    './_base_/schedules/adamw_micro_det.py',
]
