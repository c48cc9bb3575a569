"""No network is told at once, and only where there is none."""

import socket
import time

import pytest
from huggingface_hub import constants

from mmvitcompress.checkpoints.timm import create
from mmvitcompress.compat.hub import hub
from mmvitcompress.errors import CheckpointError

PROXIES = [f'{kind}_proxy' for kind in ('http', 'https', 'all', 'no')]


@pytest.fixture
def online(monkeypatch):
    """Says whether names are known, and by how many questions."""
    asked = []

    def start(known):
        def resolve(host, *args):
            asked.append(host)
            if not known:
                raise socket.gaierror('Name or service not known')

        for name in PROXIES:
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.setattr(socket, 'getaddrinfo', resolve)
        monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
        return asked

    return start


@pytest.mark.parametrize('known', [True, False])
def test_the_hub_is_asked_by_its_name(online, monkeypatch, known):
    monkeypatch.setattr(constants, 'ENDPOINT', 'https://mirror.test:8443/hf')
    asked = online(known)
    with hub():
        assert (not known) == constants.HF_HUB_OFFLINE
    assert constants.HF_HUB_OFFLINE is False
    assert asked == ['mirror.test']


def test_what_a_proxy_knows_is_left_to_it(online, monkeypatch):
    asked = online(known=False)
    monkeypatch.setenv('https_proxy', 'http://proxy.test:3128')
    with hub():
        assert constants.HF_HUB_OFFLINE is False
    assert asked == []


def test_a_model_that_is_not_there_is_told_at_once(
    online, monkeypatch, tmp_path
):
    online(known=False)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    start = time.monotonic()
    with pytest.raises(CheckpointError, match='pass the file instead'):
        create('test_vit.r160_in1k')
    assert time.monotonic() - start < 20  # its retries take 50 s and more
