"""All that timm calls a ViT is read exactly, or refused by a feature."""

from collections import defaultdict

import pytest
import timm
import torch
from swins import randomised
from timm.layers import weight_init
from timm_vits import difference

import mmvitcompress
from mmvitcompress.checkpoints.timm import describe, unsupported
from mmvitcompress.models import ViT

pytestmark = pytest.mark.slow
FAMILIES = ('beit', 'deit', 'eva', 'naflexvit', 'samvit', 'vit_')
REFUSED = {
    'relative position bias': ('beit_', 'beitv2_', 'relpos_'),
    'decomposed relative positions and windows': ('samvit_',),
    'images as sequences of patches of any size': ('naflexvit_',),
    'a convolutional net before the blocks': (
        *('vit_tiny_r_', 'vit_small_r', 'vit_base_r', 'vit_large_r'),
        'vit_base_mci_',
    ),
    'attention and MLP in parallel': ('_xp_', 'vit_pwee_'),
    'parallel branches in each block': ('_18x2_',),
    'differential attention': ('vit_dwee_', 'vit_dlittle_'),
    'differential attention in parallel to MLPs': ('vit_dpwee_',),
    'norms after attention and MLP': ('_rpn_', 'eva02_enormous_'),
    'rotary positions of learned frequencies': ('_rope_mixed_',),
    'a layer scale of attention only': ('_sapiens2',),
    'keys that heads share': ('_sapiens2',),
    'RmsNorm as norm': ('_sapiens2', '_xp_'),
}
SIZES = ('embed_dim', 'depth', 'num_heads', 'head_dim', 'patch_size')
SIZES += ('img_size', 'qk_dims', 'v_dims', 'mlp_dims')


@pytest.fixture(scope='module')
def models():
    with pytest.MonkeyPatch.context() as patch:
        # which takes half of the time, and fills nothing here
        patch.setattr(weight_init, '_trunc_normal_', lambda x, *_: x)
        yield all_models()


def all_models():
    """All of them on no device, of one block each where they can be."""
    found = {}
    for name in timm.list_models():
        if name.startswith(FAMILIES):
            varied = 'sapiens' in name  # from block to block
            options = {} if varied else dict(depth=1)
            with torch.device('meta'):
                found[name] = timm.create_model(name, **options)
    return found


def features_of(model):
    """What tells a model from others, but for sizes."""
    source = describe(model)
    content = source.arch.to_dict()
    return tuple(
        f'{key}={value}'
        for part in (content, source.options, {'class': type(model).__name__})
        for key, value in part.items()
        if key not in (*SIZES, 'num_classes')
    )


def test_every_vit_of_timm_is_read_or_refused(models):
    assert len(models) > 250
    refused = defaultdict(list)
    for name, model in models.items():
        reasons = dict.fromkeys(unsupported(model))
        if reasons:
            for reason in reasons:
                refused[reason.split(' (')[0]].append(name)
            continue
        source = describe(model)
        with torch.device('meta'):
            ours = ViT(source.arch, final_norm=source.options['final_norm'])
        own = {k: v.shape for k, v in ours.state_dict().items()}
        theirs = {
            k: v.shape
            for k, v in source.state_dict.items()
            if not k.startswith(('head', 'fc_norm'))
        }
        assert own == theirs, name
    assert {*refused} == {*REFUSED}
    for reason, names in refused.items():
        for name in names:
            assert any(part in name for part in REFUSED[reason]), name


def test_one_of_each_kind_has_the_features_of_timm(models):
    kinds = {}
    for name, model in models.items():
        if not [*unsupported(model)]:
            kinds.setdefault(features_of(model), name)
    assert len(kinds) > 30
    for name in kinds.values():
        patch = models[name].patch_embed.patch_size[0]
        sizes = [(2 * patch, 2 * patch), (4 * patch, 3 * patch)]
        torch.manual_seed(0)
        theirs = timm.create_model(
            name,
            depth=2,
            embed_dim=64,
            num_heads=2,
            mlp_ratio=2,
            img_size=sizes[0],
        )
        theirs = randomised(theirs).double()
        ours = mmvitcompress.compress(theirs)
        for size in sizes:
            x = torch.randn(1, 3, *size, dtype=torch.float64)
            theirs.set_input_size(size)
            with torch.no_grad():
                error = difference(
                    ours.forward_features(x), theirs.forward_features(x)
                )
            assert error <= 1e-9, (name, size)
