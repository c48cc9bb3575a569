"""Small ViTs with random weights, and a loss to score their channels by."""

import torch

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.models import ViT

SMALL = dict(
    embed_dim=24,
    depth=4,
    num_heads=3,
    patch_size=4,
    img_size=32,
    qk_dims=(8, 4, 6, 2),
    v_dims=(8, 6, 2, 4),
    mlp_dims=(48, 96, 8, 24),
)
"""Values of an arch whose blocks are pruned to widths of their own."""
SCORED = ViTArch(12, 2, 2, patch_size=8, img_size=16, mlp_dims=20)


def scored_vit():
    """A net of :data:`SCORED` in float64."""
    torch.manual_seed(0)
    model = ViT(SCORED, final_norm=False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.double().eval()


def scored_images(count):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 16, 16, generator=generator).double()


def loss_of(model, x):
    return model(x)[-1][0].pow(3).mean()
