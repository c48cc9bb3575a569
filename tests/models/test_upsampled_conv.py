"""Convolving what was upsampled, without upsampling it."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmvitcompress.models.fast.upsampled_conv import (
    conv_of_upsampled,
    shifted_upsampling,
)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    size=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    align_corners=st.booleans(),
)
def test_equals_convolving_the_upsampled_map(
    height, width, size, align_corners
):
    x = torch.randn(2, 3, height, width, dtype=torch.double)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.double)
    up = F.interpolate(
        x, size=size, mode='bilinear', align_corners=align_corners
    )
    torch.testing.assert_close(
        conv_of_upsampled(x, weight, size, align_corners),
        F.conv2d(up, weight, padding=1),
        rtol=1e-10,
        atol=1e-10,
    )


def test_matrix_by_hand():
    # two positions become four, 1, 3/4, 1/4, 0 of the first one
    like = torch.zeros(1, dtype=torch.double)
    line = torch.tensor([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    none = torch.zeros(1, 2)
    expected = torch.cat(
        [
            torch.cat([none, line[:3]]),
            line,
            torch.cat([line[1:], none]),
        ],
        1,
    )
    found = shifted_upsampling(2, 4, like)
    assert torch.equal(found, expected.double())
