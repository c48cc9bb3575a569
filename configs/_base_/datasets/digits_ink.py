# The scenes of digits_scenes.py with two classes: digits are to be found, not
# to be told apart.
_base_ = './digits_scenes.py'
ink = dict(dataset=dict(type='mmvitcompress.DigitInkDataset'))
train_dataloader = ink
val_dataloader = ink
test_dataloader = ink
