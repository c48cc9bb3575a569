"""Peak memory, against sums by hand."""

import pytest
import torch
from torch import nn

from mmvitcompress.analysis.footprint import peak_memory

CPU = torch.device('cpu')


def steps(x, keep):
    """Three maps as large as ``x``, of which two or three live at once."""
    first = x + 1
    second = first + 1
    if not keep:
        del first
    return second + 1


@pytest.mark.parametrize(('keep', 'maps'), [(False, 2), (True, 3)])
def test_peak_by_hand(keep, maps):
    x = torch.zeros(256, 1024)  # 1 MiB; not of the run's making
    model = nn.Linear(512, 512, bias=False)  # 1 MiB
    model.register_buffer('table', torch.zeros(512, 1024))  # 2 MiB
    peak = peak_memory(lambda: steps(x, keep), model, CPU)
    # and some bytes for the scalars
    assert 3 + maps <= peak < 3 + maps + 1e-3


def test_what_is_made_once_does_not_count():
    cache = {}

    def run():
        if 'table' not in cache:
            cache['table'] = torch.zeros(256, 1024)
        return cache['table'].sum()

    assert peak_memory(run, nn.Identity(), CPU) < 1e-3


def test_devices_that_do_not_tell():
    meta = torch.device('meta')
    x = torch.zeros(4, device=meta)
    assert peak_memory(lambda: x + 1, nn.Identity(), meta) is None
