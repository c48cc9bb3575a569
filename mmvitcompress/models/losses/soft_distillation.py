"""Soft distillation: the student's logits and patches come near a teacher's.

What DynamicViT is trained with (Rao et al., NeurIPS 2021, Eq. 13 to 16), and
of use for any other method: patches that have left are compared, if at all,
by the feature that they left with.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvitcompress.errors import ConfigError
from mmvitcompress.models.layers.features import full_patches
from mmvitcompress.tokens import TokenMethod, TokenState, restore
from mmvitcompress.utils.checks import check_at_least_zero

SOFT = ('soft', 'tokens')
"""What ``distillation`` may have in place of ``alpha``."""


def check_soft(config: dict, teacher: nn.Module, arch) -> None:
    """Raise ConfigError unless the weights are numbers, and a teacher has
    patches where those of a student of an arch are compared with them."""
    for name in SOFT:
        check_at_least_zero(f'distillation.{name}', config.get(name, 0))
    if not config.get('tokens'):
        return
    theirs = getattr(getattr(teacher, 'backbone', None), 'arch', None)
    names = ('embed_dim', 'patch_size', 'num_prefix_tokens')
    for name in names:
        ours, other = getattr(arch, name), getattr(theirs, name, None)
        if ours != other:
            raise ConfigError(
                'distillation.tokens compares patches: the teacher must be an '
                f'ImageClassifier whose {name} is {ours}, but got {other}'
            )


def soft_losses(
    logits: Tensor,
    targets: Tensor,
    taught: Tensor,
    weight: float,
    label_smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """CE(student, target) and weight · KL(teacher ‖ student).

    Args:
        logits: The student's (B, classes).
        targets: Class indices (B) or soft targets (B, classes).
        taught: The teacher's logits (B, classes).
        weight: Of the second term.
        label_smoothing: Of the targets.
    """
    truth = F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    ours, theirs = (x.float().log_softmax(1) for x in (logits, taught))
    divergence = F.kl_div(ours, theirs, reduction='batchmean', log_target=True)
    return dict(loss_cls=truth, loss_soft=weight * divergence)


def patch_loss(
    tokens: Tensor,
    state: TokenState,
    taught: Tensor,
    prefix: int,
    methods: tuple[TokenMethod, ...] = (),
) -> Tensor:
    """The mean squared difference of patches, over those that are left.

    Args:
        tokens: The student's (B, prefix + n, D), and their ``state``.
        state: See above.
        taught: The teacher's (B, prefix + N, D).
        prefix: Tokens before the patches.
        methods: The student's, which say what is left while they learn.
    """
    miss = full_patches(tokens, state, prefix) - taught[:, prefix:]
    miss = miss.float().square().mean(2)  # (B, N)
    weights = torch.ones_like(miss)
    for method in methods:
        alive = method.alive(state)
        if alive is not None:
            weights = weights * restore(alive[..., None], state).flatten(1)
    return (weights * miss).sum() / weights.sum().clamp_min(1)
