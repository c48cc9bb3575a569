"""What token methods may ask of the attention of a block."""

from torch import Tensor


class Attended:
    """What an attention saw, for token methods that ask.

    Args:
        q: Queries (B, h, n, d): a view into the projection, as the keys.
        k: Keys (B, h, n, d).
        scale: Softmax scale.
        bias: What was added to the logits, or None.
    """

    def __init__(self, q: Tensor, k: Tensor, scale: float, bias=None):
        self._q, self._k, self._scale, self._bias = q, k, scale, bias

    def keys(self) -> Tensor:
        """The keys (B, h, n, d)."""
        return self._k

    def class_row(self, num_prefix: int) -> Tensor:
        """How much [CLS] attends to each token, (B, h, n).

        The softmax of one query's logits, for n·d multiply-accumulates a
        head: the n×n weights are never made. Where there is no prefix token
        the mean query of all patches stands for [CLS].

        Args:
            num_prefix: Number of prefix tokens, [CLS] first.
        """
        query = self._q[:, :, :1]
        if not num_prefix:
            query = self._q.mean(2, keepdim=True)
        logits = (query @ self._k.transpose(2, 3)) * self._scale
        if self._bias is not None:
            logits = logits + self._bias
        return logits.float().softmax(-1).squeeze(2)
