# ToMe at the MACs of ATME before blocks 4 and 7 (-51 %): r tokens merge in
# every block.
_base_ = './tuned_dense_dinov2_s_camvid.py'
model = dict(backbone=dict(token_matching=dict(macs_of=dict(layers=(4, 7)))))
