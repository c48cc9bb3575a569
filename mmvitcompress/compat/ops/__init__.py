"""The compiled operations of MMCV that dense prediction needs, in torch.

Signatures are those of MMCV 2.x's extension module, in-place outputs
included, so that MMCV's own Python wrappers call them unchanged.
"""
