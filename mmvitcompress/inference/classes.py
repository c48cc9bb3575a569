"""What the classes of a trained model are called."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.registry import DATASETS
from timm.utils.misc import natural_key
from torch import nn

from mmvitcompress.errors import ConfigError


def metainfo(dataset: Mapping) -> dict:
    """What a data set's config or its class tells about classes."""
    kind = DATASETS.get(dataset['type'])
    return {
        **getattr(kind, 'METAINFO', {}),
        **(dataset.get('metainfo') or {}),
    }


def name_classes(
    model: nn.Module, dataset: Mapping, names: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Name each class: by ``names``, else by folders of the data, if there
    are as many, else by numbers.

    Raises:
        ConfigError: If there are more or fewer names than classes.
    """
    count = _count_classes(model)
    names = names or _folders(dataset, count) or map(str, range(count))
    names = tuple(names)
    if len(names) != count:
        raise ConfigError(
            f'the model tells {count} classes apart, but {len(names)} names '
            'are given'
        )
    return names


def _folders(dataset: Mapping, count: int) -> list[str] | None:
    """Names of a classifier's classes: timm's data sets have a folder each."""
    root, split = dataset.get('data_root'), dataset.get('split')
    folder = Path(root or '', split or '')
    if not root or not folder.is_dir():
        return None
    names = [path.name for path in folder.iterdir() if path.is_dir()]
    return sorted(names, key=natural_key) if len(names) == count else None


def _count_classes(model: nn.Module) -> int:
    """The most that a head tells apart; of proposals it is one only."""
    count = max(
        getattr(module, 'num_classes', None) or 0
        for name, module in model.named_modules()
        if not name.startswith('backbone.')
    )
    if not count:
        raise ConfigError(
            f'{type(model).__name__} has no head that tells its classes'
        )
    return max(count, 2)  # one channel tells two classes apart
