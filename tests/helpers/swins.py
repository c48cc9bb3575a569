"""Small Swins, timm's and ours, all of whose numbers matter."""

import torch
from timm.models.swin_transformer import SwinTransformer

from mmvitcompress.models import CompressedSwin

SHAPE = dict(embed_dim=8, depths=(2, 2, 4, 2), num_heads=(1, 2, 4, 8))
SMALL = dict(
    SHAPE,
    window_size=4,
    img_size=64,
    qk_dims=(8, 4, 6, 8, 2, 4, 8, 6, 8, 4),
    v_dims=(4, 8, 8, 2, 6, 8, 4, 8, 2, 8),
    mlp_dims=(32, 16, 64, 24, 40, 128, 64, 96, 256, 128),
)
MERGES = {
    'dense': None,
    'atme': dict(layers=(2, 3)),
    'vertical': dict(layers=(1,), directions='vertical'),
    'atme-conv': dict(layers=(3, 4), conv=True),
    'symmetric': dict(layers=(2,), directions='symmetric'),
    'diagonal': dict(layers=(2,), directions='diagonal'),
}
SIZES = [(64, 64), (61, 106), (33, 50), (4, 7), (130, 36)]


def randomised(model, std=0.2):
    # init leaves biases at 0 and scales at one value, which would hide slips
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model.eval()


def small(method='dense', arch=SMALL, **kwargs):
    torch.manual_seed(0)
    merging = MERGES[method]
    return randomised(CompressedSwin(arch, token_merging=merging, **kwargs))


def run(model, x):
    with torch.no_grad():
        return model(x)


def timm_swin(size, **kwargs):
    torch.manual_seed(0)
    return randomised(SwinTransformer(size, **{**SHAPE, **kwargs}))


def saved(peer, path):
    torch.save(dict(peer.state_dict()), path)  # without the arch beside
    return str(path)


def assert_close(ours, theirs, bound):
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= bound * theirs.abs().max()
