# CDCP within 320 iterations: after 24, channels go in 0.5 / 0.02 x 5 = 125; in
# the last 100 they vanish, helped (shrink).
custom_hooks = [
    dict(
        type='mmvitcompress.CDCPHook',
        target=0.5,
        warmup=24,
        increment=0.02,
        interval=5,
        settle=100,
        shrink=0.03,
        report_interval=100,
    ),
]
