# UperNet tells cell nuclei from background, from random weights: 200
# iterations x 16 crops / 287 images = 11 epochs. The control.
_base_ = [
    './_base_/models/upernet_vit_micro.py',
    './_base_/datasets/nuclei_maps.py',
    './_base_/schedules/digits_200.py',
    './_base_/default_runtime.py',
]
