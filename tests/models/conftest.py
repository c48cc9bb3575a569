"""Where MMCV has no operations of its own, it finds ours from here on."""

import mmvitcompress  # noqa: F401
