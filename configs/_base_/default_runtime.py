# What every segmentation run shares; needs the hooks of a schedule beside it.
default_scope = 'mmseg'
custom_imports = dict(imports=['mmvitcompress'], allow_failed_imports=False)

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)

vis_backends = [
    dict(type='LocalVisBackend'),
    dict(type='TensorboardVisBackend'),
]
visualizer = dict(
    type='SegLocalVisualizer', vis_backends=vis_backends, name='visualizer'
)
# losses and times in the log are means over this many iterations
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=False)
log_level = 'INFO'

load_from = None
resume = False

# test with scales and flips: tools/test.py --tta
tta_model = dict(type='SegTTAModel')
