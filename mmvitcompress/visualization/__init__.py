"""Figures of what compression does; for notebooks, tools and training runs.

For each kind there are functions that compute what is drawn and one that
draws it and returns a matplotlib figure::

    lives = predict_lives(model.backbone, images)
    figure = draw_life(pictures, lives, patch=16)

``FIGURES`` holds all kinds; tools/visualize.py and
:class:`CompressionVisualizationHook` are made from it. Needs matplotlib.
"""

try:
    import matplotlib  # noqa: F401
except ModuleNotFoundError as error:
    from mmvitcompress.errors import DependencyError

    raise DependencyError(
        'pictures need matplotlib, which is not installed: pip install '
        'matplotlib'
    ) from error

from mmvitcompress.checkpoints.widths import read_heads, read_widths
from mmvitcompress.visualization.attention import (
    ReceivedAttention,
    attention_weights,
    class_attention,
    draw_attention,
)
from mmvitcompress.visualization.base import Kind
from mmvitcompress.visualization.channels import (
    Channels,
    draw_channels,
    draw_heads,
)
from mmvitcompress.visualization.compare import (
    Compare,
    compare_segmentors,
    draw_comparison,
)
from mmvitcompress.visualization.curve import (
    Curve,
    draw_curve,
    join_results,
    read_results,
)
from mmvitcompress.visualization.features import (
    Features,
    colour_maps,
    draw_features,
    restored_maps,
)
from mmvitcompress.visualization.life import Life, draw_life, predict_lives
from mmvitcompress.visualization.loading import token_map
from mmvitcompress.visualization.merges import (
    Merges,
    draw_merges,
    merge_stages,
)
from mmvitcompress.visualization.style import save_figure, to_array

FIGURES: dict[str, Kind] = {
    'merges': Merges(),
    'life': Life(),
    'channels': Channels(),
    'attention': ReceivedAttention(),
    'features': Features(),
    'compare': Compare(),
    'curve': Curve(),
}
"""All kinds of figures by their names."""

__all__ = [
    'FIGURES',
    'attention_weights',
    'class_attention',
    'colour_maps',
    'compare_segmentors',
    'draw_attention',
    'draw_channels',
    'draw_comparison',
    'draw_curve',
    'draw_features',
    'draw_heads',
    'draw_life',
    'draw_merges',
    'join_results',
    'merge_stages',
    'predict_lives',
    'read_heads',
    'read_results',
    'read_widths',
    'restored_maps',
    'save_figure',
    'to_array',
    'token_map',
]
