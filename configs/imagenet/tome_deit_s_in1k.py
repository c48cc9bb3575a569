# ToMe: in every block of DeiT-Small 13 tokens merge into similar ones.
_base_ = './dense_deit_s_in1k.py'

model = dict(backbone=dict(token_matching=dict(r=13)))
