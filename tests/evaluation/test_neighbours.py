"""Nearest neighbours by hand, and with the tool on a folder."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmvitcompress.errors import ConfigError
from mmvitcompress.evaluation.neighbours import classify_by_neighbours


def on_circle(*degrees):
    angles = torch.tensor(degrees) * math.pi / 180
    return torch.stack([angles.cos(), angles.sin()], 1)


def test_near_neighbours_outvote_more_that_are_far():
    known = on_circle(0.0, 40.0, 42.0)
    labels = torch.tensor([1, 0, 0])
    near = math.exp(math.cos(math.radians(2)) / 0.07)
    far = sum(math.exp(math.cos(math.radians(d)) / 0.07) for d in (38, 40))
    assert near > far  # by hand
    query = on_circle(2.0)
    assert classify_by_neighbours(known, labels, query, 3).tolist() == [1]
    flat = classify_by_neighbours(known, labels, query, 3, temperature=10.0)
    assert flat.tolist() == [0]


def test_only_k_vote():
    known = on_circle(0.0, 10.0, 11.0)
    labels = torch.tensor([2, 1, 1])
    query = on_circle(1.0)
    assert classify_by_neighbours(known, labels, query, 1).tolist() == [2]


def test_chunks_change_nothing():
    torch.manual_seed(0)
    known, queries = (
        F.normalize(torch.randn(n, 8), dim=1) for n in (50, 1030)
    )
    labels = torch.randint(0, 4, (50,))
    whole = classify_by_neighbours(known, labels, queries, 5)
    single = classify_by_neighbours(known, labels, queries[1025:], 5)
    assert whole[1025:].equal(single)


@pytest.mark.parametrize('k', [0, 4])
def test_k_must_be_possible(k):
    with pytest.raises(ConfigError, match=rf'1\.\.3.*got {k}'):
        classify_by_neighbours(
            on_circle(0.0, 1.0, 2.0), torch.zeros(3).long(), on_circle(1.0), k
        )
