# ImageNet-1k scaled to [-1, 1], as the ViTs of the augreg release want it.
_base_ = './imagenet.py'
norm = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

train_dataloader = dict(dataset=dict(transform=norm))
val_dataloader = dict(dataset=dict(transform=norm))
test_dataloader = val_dataloader
