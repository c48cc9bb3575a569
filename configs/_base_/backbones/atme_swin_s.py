# Swin-Small with merged tokens (ATME); made by: tools/train.py
# configs/imagenet/atme_swin_s_in1k.py. Layers are blocks of stage 3. From a
# dense checkpoint merges start as means, which costs some quality.
backbone = dict(
    type='mmvitcompress.CompressedSwin',
    arch='swin_small',
    token_merging=dict(
        layers=(7, 13), directions='alternate', first='horizontal'
    ),
    checkpoint='checkpoints/atme_swin_small_in1k.pth',
)
