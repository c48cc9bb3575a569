# CDCP within 80 000 iterations or more: after 8 000, channels go in
# 0.5 / 0.00025 x 25 = 50 000; in the last 15 000 they vanish, helped (shrink).
custom_hooks = [
    dict(
        type='mmvitcompress.CDCPHook',
        target=0.5,
        warmup=8000,
        increment=0.00025,
        settle=15000,
        shrink=0.0005,
    ),
]
