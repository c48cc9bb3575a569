"""Pictures of what compression does; for notebooks, tools and training runs.

For each kind there are functions that compute what is drawn and one that
draws it and returns a matplotlib figure::

    lives = predict_lives(model.backbone, images)
    figure = draw_life(pictures, lives, patch=16)

tools/visualize.py and :class:`CompressionVisualizationHook` are built on
them. Needs matplotlib.
"""

from mmvitcompress.visualization.attention import (
    attention_weights,
    class_attention,
    draw_attention,
)
from mmvitcompress.visualization.channel_pictures import (
    draw_channels,
    draw_heads,
)
from mmvitcompress.visualization.channels import read_heads, read_widths
from mmvitcompress.visualization.curve import (
    draw_curve,
    join_results,
    read_results,
)
from mmvitcompress.visualization.features import (
    colour_maps,
    draw_features,
    restored_maps,
)
from mmvitcompress.visualization.life import draw_life, predict_lives
from mmvitcompress.visualization.merges import (
    draw_merges,
    merge_stages,
    token_map,
)
from mmvitcompress.visualization.segmentation import compare_segmentors
from mmvitcompress.visualization.segmentation_pictures import (
    draw_comparison,
)
from mmvitcompress.visualization.style import save, to_array

__all__ = [
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
    'save',
    'to_array',
    'token_map',
]
