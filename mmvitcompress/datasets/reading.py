"""Opening data that timm reads, with errors that name what is wrong."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from timm.data import ImageDataset, create_dataset
from timm.data.readers.reader_image_in_tar import ReaderImageInTar
from torch.utils.data import Dataset

from mmvitcompress.errors import ConfigError, DataError, DependencyError
from mmvitcompress.utils.images import UNREADABLE

# what a form of data set, by the prefix of its name, needs besides timm
PACKAGES = {
    'hfds': 'datasets',
    'hfids': 'datasets',
    'tfds': 'tensorflow_datasets',
    'wds': 'webdataset',
}
SEQUENTIAL = ('hfids', 'tfds', 'wds')


def form_of(name: str) -> str:
    """'wds/imagenet' → 'wds'; '' for folders and tar files."""
    return name.partition('/')[0].lower() if '/' in name else ''


def open_dataset(name: str, root: str | None, split: str, **kwargs) -> Dataset:
    """Open a data set of any form that timm reads.

    Args:
        name: As timm's ``create_dataset`` takes it.
        root: Where it lies. Folders and tar files are ``root/split/…``,
            ``root/split.tar`` or, where these don't exist and the name of
            ``root`` ends in .tar, ``root`` itself.
        split: Such as 'train'.
        **kwargs: Further arguments of ``create_dataset``.

    Raises:
        DataError: If there is nothing to read.
        DependencyError: If the form needs a package that isn't installed.
    """
    form = form_of(name)
    package = PACKAGES.get(form)
    if package and find_spec(package) is None:
        raise DependencyError(
            f'data set {name!r} needs the package {package!r}: install it '
            f'with pip install {package}'
        )
    with _naming(f'data set {name!r}, {root!r}, {split}'):
        if form:
            return create_dataset(name, root=root, split=split, **kwargs)
        path = _locate(root, split)
        if path.is_dir() and any(path.glob('*.tar')):
            class_map = kwargs.pop('class_map', None)
            reader = ReaderImageInTar(str(path), class_map or '')
            return ImageDataset(str(path), reader=reader, **kwargs)
        return create_dataset(
            name, root=str(path), split=split, search_split=False, **kwargs
        )


def _locate(root: str | None, split: str) -> Path:
    """Where the images of a split lie."""
    if root is None:
        raise ConfigError('data_root must name a folder, but got None')
    folder, tar, given = Path(root, split), Path(root, f'{split}.tar'), root
    if folder.is_dir():
        return folder
    if tar.is_file():
        return tar
    if given.endswith('.tar') and Path(given).is_file():
        return Path(given)
    raise DataError(
        f'no folder {str(folder)!r}, where the {split} images should lie, one '
        f'folder or tar file a class, and no file {str(tar)!r}; set '
        "the data set's data_root"
    )


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Turn timm's and its readers' ways to say 'no such data' into ours."""
    try:
        yield
    except (ConfigError, DataError):
        raise
    except (
        AssertionError,
        RuntimeError,
        ValueError,
        OSError,
        tarfile.TarError,
    ) as error:
        reason = str(error).strip() or type(error).__name__
        raise DataError(
            f'{what} cannot be opened: {reason}; check data_root and split'
        ) from error


@contextmanager
def naming_file(dataset: Dataset, index: int) -> Iterator[None]:
    """Raise a DataError with the file, or place, of an image that can't be
    read."""
    try:
        yield
    except (*UNREADABLE, tarfile.TarError) as error:
        name = f'{index} of {type(dataset).__name__}'
        if isinstance(dataset, ImageDataset):
            name = dataset.filename(index, absolute=True) or name
        raise DataError(
            f'image {name} cannot be read '
            f'({type(error).__name__}: {error}); fetch it again or take it out'
        ) from error


def class_names(dataset: Dataset) -> dict[str, int] | None:
    """Classes and their indices, where the data set knows them."""
    for owner in (getattr(dataset, 'reader', None), dataset):
        for attribute in ('class_to_idx', 'class_name_to_idx'):
            names = getattr(owner, attribute, None)
            if isinstance(names, dict) and names:
                return dict(names)
    return None
