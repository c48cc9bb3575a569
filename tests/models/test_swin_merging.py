"""Tokens of a Swin, merged and handed back to their places."""

import pytest
import torch
import torch.nn.functional as F
from swins import SHAPE, run, small

from mmvitcompress.models import CompressedSwin
from mmvitcompress.models.swin import halved
from mmvitcompress.tokens import TokenMerge, TokenState, restore


@pytest.mark.parametrize('size', [(128, 192), (108, 141)])
def test_merges_start_as_average_pooling(size):
    """Even and odd grids, non-square; nothing else happens in between."""
    model = CompressedSwin(SHAPE, token_merging=dict(layers=(2, 4))).eval()
    seen = {}
    for index, block in enumerate(model.layers[2].blocks):
        block.register_forward_hook(
            lambda _, args, out, index=index: seen.update(
                {index: (args[0], out)}
            )
        )
    run(model, torch.randn(1, 3, *size))
    for index, kernel in ((1, (1, 2)), (3, (2, 1))):
        before = seen[index - 1][1].permute(0, 3, 1, 2)
        # a last row or column without a partner stays as it is
        expected = F.avg_pool2d(before, kernel, kernel, ceil_mode=True)
        merged = seen[index][0].permute(0, 3, 1, 2)
        torch.testing.assert_close(merged, expected)
    torch.testing.assert_close(seen[2][0], seen[1][1])


def test_nearest_hands_tokens_back_to_their_places():
    model = small('atme', restore=False, out_norms=False)
    x = torch.randn(1, 3, 100, 84)
    for level, full in zip(run(model, x)[2:], ((7, 6), (4, 3))):
        h, w = level.state.grid
        assert (h, w) == (-(-full[0] // 2), -(-full[1] // 2))
        restored = restore(*level)
        for i in range(full[0]):
            for j in range(full[1]):
                token = level.tokens[0, (i // 2) * w + j // 2]
                assert torch.equal(restored[0, :, i, j], token)


@pytest.mark.parametrize(
    'direction, rows, columns',
    [
        ('horizontal', 2, 4),
        ('vertical', 4, 2),
        ('symmetric', 4, 4),
        ('diagonal', 4, 2),
    ],
)
def test_stage_four_is_restored_where_it_came_from(direction, rows, columns):
    """Tokens that carry their coordinates, through merge and 2×2 merging."""
    height, width = 8, 12
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(12.0), indexing='ij')
    tokens = torch.stack([y, x], -1).flatten(0, 1)[None]
    merge = TokenMerge(2, direction)
    tokens, state = merge(tokens, TokenState.start((height, width)), 0)
    grid = tokens.unflatten(1, state.grid).permute(0, 3, 1, 2)
    tokens = F.avg_pool2d(grid, 2).flatten(2).transpose(1, 2)
    found = restore(tokens, halved(state))[0]  # (2, 4, 6)
    y, x = y[::2, ::2], x[::2, ::2]  # upper left of each 2×2 patch
    centre_y = y // rows * rows + (rows - 1) / 2
    centre_x = x // columns * columns + (columns - 1) / 2
    torch.testing.assert_close(found, torch.stack([centre_y, centre_x]))
