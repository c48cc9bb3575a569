"""Telling at once where there is no network.

The hub's client asks again for most of a minute before it takes what lies in
its cache, or says that nothing does.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants


@contextmanager
def hub() -> Iterator[None]:
    """Let the hub's client look into its cache alone where it is offline.

    That is for the time being: what was set before is set again afterwards.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or is_offline()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def is_offline() -> bool:
    """Whether nobody knows the hub's name.

    Behind a proxy that says nothing, since the proxy may know it.
    """
    if getproxies():
        return False
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        return True
    return False
