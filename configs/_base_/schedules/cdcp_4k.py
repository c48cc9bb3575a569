# CDCP within 4 000 iterations: after 200, channels go in 0.5 / 0.01 x 40 =
# 2 000; in the last 1 500 they vanish, helped (shrink).
custom_hooks = [
    dict(
        type='mmvitcompress.CDCPHook',
        target=0.5,
        img_size=224,
        warmup=200,
        increment=0.01,
        interval=40,
        settle=1500,
        rules=dict(divisor=8),
        shrink=0.02,
    ),
]
