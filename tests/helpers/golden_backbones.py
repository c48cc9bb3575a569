"""Backbones by themselves or with a neck: every method, every net."""

from golden_case import PRUNED_SWIN, SWIN, Case

TINY = dict(
    embed_dim=24, depth=6, num_heads=2, patch_size=8, img_size=(64, 96)
)
ODD = (69, 107)  # 9x14 patches, the last ones incomplete
OUT = (1, 3, 5)


def vit(changes=None, kind='CompressedViT', out=OUT, **kwargs):
    arch = dict(TINY, **(changes or {}))
    settings = dict(arch=arch, out_indices=out, **kwargs)
    return dict(type=f'mmvitcompress.{kind}', **settings)


def merged(*directions, conv=False, **kwargs):
    layers = tuple(range(2, 2 + len(directions)))
    spec = dict(layers=layers, directions=directions, conv=conv)
    return vit(token_merging=spec, **kwargs)


def lean_swin(arch=SWIN, **kwargs):
    return dict(type='mmvitcompress.CompressedSwin', arch=arch, **kwargs)


SLIM = dict(base_layer=2, layers=(2, 4), keep_rate=0.6)
WIDE_HEADS = dict(head_dim=16, qk_dims=12, v_dims=16, mlp_dims=40)
UPSAMPLE = dict(type='mmvitcompress.UnmergeUpsample')
PYRAMID = dict(
    type='mmvitcompress.UnmergePyramid', embed_dim=24, rescales=[4, 2, 0.5]
)
GROUPS = dict(PYRAMID, norm_cfg=dict(type='GN', num_groups=4))
FPN = dict(
    type='mmvitcompress.UnmergeFPN',
    embed_dim=24,
    out_channels=8,
    num_outs=4,
    rescales=[4, 1, 0.5],
)
STOCK_FPN = dict(type='FPN', in_channels=[24] * 3, out_channels=8, num_outs=4)

BACKBONES = {
    'dense': Case(vit()),
    'dense, odd image': Case(vit(), size=ODD, batch=2),
    'dense, square image': Case(vit(final_norm=True), size=(72, 72)),
    'dense, resampled': Case(vit(), size=ODD, resampled=True, single=''),
    'registers, resampled': Case(
        vit(dict(reg_tokens=4, pos_embed='patch', dist_token=True)),
        size=ODD,
        resampled=True,
        single='',
    ),
    'merged, resampled, training': Case(
        merged('horizontal', 'vertical'),
        size=ODD,
        train=True,
        resampled=True,
        single='',
    ),
    'dense, no position': Case(vit(dict(pos_embed='none'))),
    'dense, no class token': Case(vit(dict(class_token=False)), size=ODD),
    'dense, other widths': Case(vit(WIDE_HEADS), size=ODD),
    'distilled': Case(vit(dict(dist_token=True), final_norm=True), size=ODD),
    'deit3': Case(vit(dict(pos_embed='patch', layer_scale=True)), size=ODD),
    'dinov2': Case(
        vit(dict(patch_size=14, img_size=98, layer_scale=True)),
        size=(100, 126),
    ),
    'dinov2 with registers': Case(
        vit(
            dict(
                patch_size=14,
                img_size=98,
                layer_scale=True,
                reg_tokens=4,
                pos_embed='patch',
            ),
            final_norm=True,
            token_merging=dict(layers=(3,)),
        ),
        size=(100, 126),
    ),
    'lvvit': Case(
        vit(
            dict(
                stem='conv',
                stem_dim=16,
                qkv_bias=False,
                skip_scale=2.0,
                norm_eps=1e-5,
                mlp_dims=72,
            ),
            token_merging=dict(layers=(2, 4)),
        ),
        size=ODD,
    ),
    'horizontal': Case(merged('horizontal'), size=ODD),
    'vertical': Case(merged('vertical'), size=ODD),
    'symmetric': Case(merged('symmetric'), size=ODD),
    'diagonal': Case(merged('diagonal'), size=ODD),
    'all directions, with convolutions': Case(
        merged('vertical', 'diagonal', 'horizontal', conv=True), size=(133, 66)
    ),
    'vertical first': Case(
        vit(token_merging=dict(layers=(2, 4), first='vertical'))
    ),
    'bilinear': Case(
        merged('horizontal', 'symmetric', restore_mode='bilinear'), size=ODD
    ),
    'merged, training': Case(
        merged('horizontal', 'vertical', conv=True), size=ODD, train=True
    ),
    'recomputed, training': Case(
        merged('horizontal', with_cp=True), batch=2, train=True
    ),
    'atme by name': Case(
        vit(dict(depth=9), kind='ATMEDeiT', out=(4, 6, 8)), size=ODD
    ),
    'cait by name': Case(
        vit(dict(depth=9, **WIDE_HEADS), kind='CAITDeiT', out=(4, 8)),
        size=ODD,
    ),
    'slimming by name': Case(
        vit(dict(depth=10), kind='LifeSlimDeiT', out=(3, 6, 9)), batch=2
    ),
    'pruned, merged and slimmed': Case(
        vit(
            WIDE_HEADS,
            token_merging=dict(layers=(2,)),
            patch_slimming=SLIM,
            final_norm=True,
        ),
        size=ODD,
        batch=2,
    ),
    'slimmed tokens': Case(
        vit(patch_slimming=SLIM, out_type='raw', final_norm=True), batch=2
    ),
    'soft slimming': Case(
        vit(patch_slimming=SLIM, soft_slimming=True), batch=2, size=ODD
    ),
    'soft slimming, training': Case(
        vit(patch_slimming=SLIM, soft_slimming=True),
        size=ODD,
        batch=2,
        train=True,
    ),
    'compactors': Case(
        merged('horizontal', changes=WIDE_HEADS, compactors=True)
    ),
    'compactors, training': Case(
        vit(WIDE_HEADS, compactors=True), batch=2, train=True
    ),
    'frozen, training': Case(
        merged('horizontal', 'vertical', frozen_stages=2), train=True
    ),
    'windows': Case(vit(window_size=4), size=ODD, batch=2),
    'windows, merged': Case(
        merged('horizontal', 'vertical', window_size=3, global_blocks=(2,)),
        size=(133, 112),
    ),
    'upsampled': Case(
        merged('diagonal', 'horizontal', restore=False),
        necks=(UPSAMPLE,),
        size=ODD,
    ),
    'upsampled bilinearly': Case(
        merged('vertical', 'horizontal', restore=False),
        necks=(dict(UPSAMPLE, mode='bilinear'),),
        size=ODD,
    ),
    'mask tokens': Case(
        vit(patch_slimming=SLIM, restore=False),
        necks=(dict(UPSAMPLE, fill='mask_token', in_channels=[24] * 3),),
        batch=2,
    ),
    'pyramid': Case(
        merged('horizontal', 'vertical', restore=False),
        necks=(PYRAMID,),
        size=ODD,
    ),
    'pyramid, diagonal': Case(
        merged('diagonal', restore=False), necks=(PYRAMID,), size=ODD
    ),
    'pyramid with groups': Case(
        merged('symmetric', restore=False), necks=(GROUPS,), size=ODD
    ),
    'pyramid, slimmed': Case(
        vit(patch_slimming=SLIM, restore=False), necks=(PYRAMID,), batch=2
    ),
    'pyramid, training': Case(
        merged('horizontal', 'vertical', restore=False),
        necks=(PYRAMID,),
        size=ODD,
        batch=2,
        train=True,
    ),
    'fpn': Case(
        merged('horizontal', 'vertical', restore=False),
        necks=(FPN,),
        size=(64, 128),
    ),
    'fpn, training': Case(
        merged('vertical', restore=False),
        necks=(FPN,),
        size=(64, 128),
        train=True,
    ),
    'pyramid and fpn': Case(
        merged('horizontal', 'vertical', restore=False),
        necks=(dict(PYRAMID, rescales=[4, 1, 0.5]), STOCK_FPN),
        size=(64, 128),
    ),
    'swin': Case(lean_swin(), size=ODD),
    'swin, padded first': Case(
        lean_swin(dict(SWIN, pad_first=True)), size=ODD
    ),
    'swin, other windows': Case(lean_swin(window_size=4), size=(130, 66)),
    'swin, final norm': Case(lean_swin(final_norm=True, out_indices=(2, 3))),
    'swin, merged and pruned': Case(
        lean_swin(PRUNED_SWIN, token_merging=dict(layers=(2, 5), conv=True)),
        size=ODD,
        batch=2,
    ),
    'swin, bilinear': Case(
        lean_swin(
            token_merging=dict(layers=(2, 3), directions='diagonal'),
            restore_mode='bilinear',
        ),
        size=(130, 142),
    ),
    'swin, upsampled': Case(
        lean_swin(token_merging=dict(layers=(3, 5)), restore=False),
        necks=(UPSAMPLE,),
        size=(130, 142),
    ),
    'swin, compactors, training': Case(
        lean_swin(PRUNED_SWIN, compactors=True, frozen_stages=1),
        train=True,
    ),
}
