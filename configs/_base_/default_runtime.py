# What every segmentation run shares; needs the hooks of a schedule beside it.
_base_ = './runtime.py'
default_scope = 'mmseg'
visualizer = dict(type='SegLocalVisualizer')
log_processor = dict(by_epoch=False)

# test with scales and flips: tools/test.py --tta
tta_model = dict(type='SegTTAModel')
