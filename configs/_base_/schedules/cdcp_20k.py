# CDCP within 20 000 iterations: after 1 000, channels go in 0.5 / 0.001 x 25 =
# 12 500; in the last 4 000 they vanish, helped (shrink).
custom_hooks = [
    dict(
        type='mmvitcompress.CDCPHook',
        target=0.5,
        warmup=1000,
        increment=0.001,
        settle=4000,
        shrink=0.002,
    ),
]
