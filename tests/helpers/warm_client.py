"""What a test starts in place of Python: it asks :mod:`warm`'s server.

Only what Python itself starts with is imported, so that this takes no time.
"""

import contextlib
import json
import os
import signal
import socket
import sys

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def main(address):
    """Have the command line run by a fork of the server; end as it ends."""
    words = sys.argv[1:]
    while words and words[0] == '-u':  # streams are written through as it is
        del words[0]
    kind = words[0] if words else '-i'
    if kind.startswith('-') and kind not in ('-m', '-c'):
        raise SystemExit(f'start Python itself with {sys.argv[1:]}')
    request = dict(
        words=words,
        environment=dict(os.environ),
        folder=os.getcwd(),
        group=os.getpgrp(),
        executable=sys.argv[0],
    )
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        content = json.dumps(request).encode() + b'\0'
        socket.send_fds(server, [content[:1]], [0, 1, 2])
        server.sendall(content[1:])
        replies = server.makefile('r')
        pid = int(replies.readline())

        def forward(number, frame):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

        for number in FORWARDED:
            signal.signal(number, forward)
        status = int(replies.readline())
    if status < 0:  # as it was killed
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)
