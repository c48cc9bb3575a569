"""What a classifier's weights are called, here and elsewhere."""

from collections.abc import Mapping

from torch import Tensor, nn

from mmvitcompress.checkpoints.file import Checkpoint
from mmvitcompress.checkpoints.fill import Log
from mmvitcompress.checkpoints.load import load_strict
from mmvitcompress.checkpoints.names import to_timm_keys

# ours → timm's and DeiT's
_TIMM_NAMES = {
    'head.fc.': 'head.',
    'head.fc_dist.': 'head_dist.',
    'head.fc_aux.': 'aux_head.',  # LV-ViT's
}


def to_timm_head(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a classifier's head the names that timm and DeiT use.

    ``head.fc`` becomes ``head`` and ``head.fc_dist`` becomes ``head_dist``,
    except in a Swin, where timm says ``head.fc`` too. All else stays.
    """
    if any(key.startswith('layers.') for key in state_dict):
        return dict(state_dict)
    return {_renamed(k, _TIMM_NAMES): v for k, v in state_dict.items()}


def from_timm_head(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a ``ClassTokenHead``, such as ``fc.weight``, if any.

    Args:
        state_dict: Of timm, DeiT or ours; ``head.`` comes before the names.
    """
    names = {
        'head.fc.': 'fc.',
        'head.fc_dist.': 'fc_dist.',
        'head.fc_aux.': 'fc_aux.',
        'head_dist.': 'fc_dist.',
        'aux_head.': 'fc_aux.',
        'head.': 'fc.',
    }
    return {
        _renamed(key, names): value
        for key, value in state_dict.items()
        if key.startswith(('head.', 'head_dist.', 'aux_head.'))
    }


def _renamed(key: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        if key.startswith(old):
            return new + key[len(old) :]
    return key


def head_classes(checkpoint: Checkpoint) -> int | None:
    """How many classes a checkpoint's classifier has; None without one."""
    tensors = from_timm_head(to_timm_keys(checkpoint.state_dict))
    weight = tensors.get('fc.weight')
    return None if weight is None else len(weight)


def load_head(head: nn.Module, checkpoint: Checkpoint, log: Log) -> bool:
    """Load the classifier of the checkpoint that the backbone came from.

    Where it has none, one for another number of classes, or one that was
    trained on the mean of the patches (``fc_norm``), the head starts anew,
    and the log says so.

    Args:
        head: A :class:`~mmvitcompress.models.classifier.ClassTokenHead`.
        checkpoint: Of whoever is known.
        log: Told what was loaded, or why nothing was.

    Returns:
        Whether there was a classifier that fits.

    Raises:
        CheckpointError: If its classifier has other tensors or shapes.
    """
    state_dict, path = to_timm_keys(checkpoint.state_dict), checkpoint.path
    tensors = from_timm_head(state_dict)
    weight = tensors.get('fc.weight')
    classes = 0 if weight is None else len(weight)
    dim = head.fc.in_features
    if not tensors:
        reason = 'it has none'
    elif any(key.startswith('fc_norm.') for key in state_dict):
        reason = 'its own reads the normalised mean of the patches (fc_norm)'
    elif classes and weight.shape[1:] != (dim,):
        reason = f'its own reads {weight.shape[1]} features, not {dim}'
    elif classes and classes != head.num_classes:
        reason = f'its own has {classes} classes, not {head.num_classes}'
    else:
        if head.fc_aux is None and 'fc_aux.weight' in tensors:
            tensors = {k: v for k, v in tensors.items() if 'fc_aux' not in k}
            log(
                f'auxiliary classifier of {path} left out: what the released '
                'model predicts needs it (auxiliary_head=True)'
            )
        # under the names that a user knows from the file
        named = {f'head.{name}': value for name, value in tensors.items()}
        load_strict(nn.ModuleDict({'head': head}), named, path)
        log(f'classifier loaded from {path}')
        return True
    log(f'classifier not loaded from {path}: {reason}')
    return False
