"""Models in which channels are masked, as a pruning run leaves them."""

import torch

from mmvitcompress.channels import find_compactors


@torch.no_grad()
def mask(model, residue=0.0, qk=3, v=2, mlp=40):
    """Mask the first channels of every kind; ``residue`` is what is left."""
    for block in find_compactors(model.backbone):
        counts = (qk, qk, v, mlp)
        for compactor, count in zip(block, counts):
            compactor.kept[:, :count] = False
            compactor.weight[:, :count] = residue
