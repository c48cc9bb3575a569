"""Image classification data, read and augmented by timm."""

import os
from collections.abc import Iterator

from mmengine.dist import get_world_size
from PIL import Image
from timm.data import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ImageDataset,
    create_transform,
)
from timm.data.readers.reader_image_folder import ReaderImageFolder
from timm.data.readers.reader_image_in_tar import ReaderImageInTar
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from mmvitcompress.datasets.reading import (
    SEQUENTIAL,
    class_names,
    form_of,
    naming_file,
    open_dataset,
)
from mmvitcompress.errors import ConfigError
from mmvitcompress.registry import DATASETS
from mmvitcompress.utils.images import upright
from mmvitcompress.utils.splits import belongs


@DATASETS.register_module()
class TimmDataset(Dataset):
    """A data set that timm reads, with a transform that timm makes.

    Args:
        data_root: Folder of the data; for folders of images and tar files,
            the one that holds the splits, or a single tar file. For 'hfds/…'
            the cache; None for the default one.
        split: Such as 'train' or 'val'.
        name: As timm's ``create_dataset`` takes it: '' for a folder with a
            folder or tar file for each class, or a tar file of such folders;
            'torch/cifar10', 'hfds/…' and so on.
        transform: Arguments of timm's ``create_transform``, such as
            ``dict(input_size=224, is_training=True, re_prob=0.25)``.
        hold_out: Share of the images of a folder that is set aside, where
            there is no validation set; by a hash of their file names, so that
            it is always the same.
        held_out: Whether to read the images that are set aside, and not the
            others.
        **kwargs: Further arguments of ``create_dataset``.

    Attributes:
        class_to_idx: Classes and their indices; None where unknown.
        mean, std: By which images are normalised, a number each channel.

    Raises:
        ConfigError: If ``hold_out`` is no share, or data aren't files, or
            can only be read in sequence.
        DataError: If there is nothing to read.
        DependencyError: If a package that reads such data is missing.
    """

    def __init__(
        self,
        data_root: str | None,
        split: str,
        name: str = '',
        transform: dict | None = None,
        hold_out: float = 0.0,
        held_out: bool = False,
        **kwargs,
    ):
        if form_of(name) in SEQUENTIAL:
            raise ConfigError(
                f'{name!r} can only be read in sequence: set '
                "type='TimmIterableDataset', with its batch_size and "
                'num_workers, and sampler=None'
            )
        self.dataset = open_dataset(name, data_root, split, **kwargs)
        _prepare(self, transform or {})
        self._process = os.getpid()
        if hold_out or held_out:
            self._split(hold_out, held_out)

    def _split(self, share: float, held_out: bool) -> None:
        if not 0 < share < 1:
            raise ConfigError(f'hold_out must lie in (0, 1), but got {share}')
        reader = getattr(self.dataset, 'reader', None)
        if not isinstance(reader, ReaderImageFolder):
            kind = self.dataset if reader is None else reader
            raise ConfigError(
                'hold_out needs a folder of images, but timm reads '
                f'{type(kind).__name__}'
            )
        reader.samples = [
            (path, target)
            for path, target in reader.samples
            if belongs(path, share, held_out)
        ]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Image (3, H, W), normalised, and its class.

        Raises:
            DataError: If the image can't be read; timm would take the next.
        """
        data = self.dataset
        if not isinstance(data, ImageDataset):  # torchvision's
            with naming_file(data, index):
                return data[index]
        self._reopen_after_fork()
        with naming_file(data, index):
            file, target = data.reader[index][:2]
            with file:
                image = upright(Image.open(file))
                image = image.convert(data.input_img_mode)
        if data.target_transform is not None:
            target = data.target_transform(target)
        return data.transform(image), -1 if target is None else int(target)

    def _reopen_after_fork(self) -> None:
        """Open tar files anew: processes must not share a place in them."""
        if os.getpid() == self._process:
            return
        self._process = os.getpid()
        reader = self.dataset.reader
        if isinstance(reader, ReaderImageInTar):
            states = reader.tar_state
            states = [states] if reader.root_is_tar else states.values()
            for state in states:
                state.reset()
                for child in state.children.values():
                    child.reset()


@DATASETS.register_module()
class TimmIterableDataset(IterableDataset):
    """A data set that timm can only read in sequence, such as a webdataset.

    It shuffles by itself, so that the loader's ``sampler`` must be None, and
    there is neither ``hold_out`` nor repeated augmentation. A sequence can't
    be resumed in the middle of an epoch.

    Args:
        data_root: Folder of the shards, or of the cache.
        split: As timm takes it: 'train', or 'train-{0000..0099}.tar|100000'.
        name: 'wds/…', 'hfids/…' or 'tfds/…'.
        transform: Arguments of timm's ``create_transform``.
        is_training: Whether to shuffle, and to fill up every epoch to whole
            batches in all workers. Defaults to ``transform.is_training``.
        batch_size, num_workers: Those of the loader.
        **kwargs: Further arguments of ``create_dataset``, such as
            ``num_samples`` and ``seed``.

    Attributes: Those of :class:`TimmDataset`.

    Raises:
        ConfigError: If the data can be read in any order, if their number is
            unknown, if there are fewer shards than workers, or if several
            processes are to evaluate.
        DataError: If there is nothing to read.
        DependencyError: If the package that reads such data is missing.
    """

    def __init__(
        self,
        data_root: str | None,
        split: str,
        name: str = 'wds/',
        transform: dict | None = None,
        is_training: bool | None = None,
        batch_size: int = 1,
        num_workers: int = 0,
        **kwargs,
    ):
        transform = transform or {}
        if is_training is None:
            is_training = transform.get('is_training', False)
        if form_of(name) not in SEQUENTIAL:
            raise ConfigError(
                f'{name!r} can be read in any order: set '
                "type='TimmDataset' and a sampler"
            )
        if {'hold_out', 'held_out'} & kwargs.keys():
            raise ConfigError(
                f'hold_out needs a folder of images, but {name!r} is read in '
                'sequence: name another split'
            )
        if not is_training and get_world_size() > 1:
            raise ConfigError(
                f'{name!r} cannot be divided among {get_world_size()} '
                'processes such that each image is evaluated once: evaluate '
                'in one process, or on a folder or tar files'
            )
        self.name = name
        self.dataset = open_dataset(
            name,
            data_root,
            split,
            is_training=is_training,
            batch_size=batch_size,
            **kwargs,
        )
        _prepare(self, transform)
        # without workers the main process is the one that reads
        self.dataset.set_loader_cfg(max(1, num_workers))
        self.is_training = is_training
        self.batch_size = batch_size
        self.num_workers = num_workers
        if not len(self):
            raise ConfigError(
                f'how many images {name!r}, {split!r} holds is unknown, and '
                'with it how long an epoch is: set num_samples'
            )
        if is_training:
            self._check_shards()

    def _check_shards(self) -> None:
        """A worker without a shard would end its epochs early."""
        info = getattr(self.dataset.reader, 'split_info', None)
        shards = len(getattr(info, 'filenames', ()))
        workers = get_world_size() * max(1, self.num_workers)
        if form_of(self.name) == 'wds' and shards < workers:
            raise ConfigError(
                f'{shards} shards cannot be divided among {workers} workers '
                'of all processes: set a smaller num_workers, or write more '
                'shards'
            )

    def __len__(self) -> int:
        """Images in one epoch of this process."""
        if self.is_training:
            return len(self.dataset)
        return self.dataset.reader.num_samples

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        """Images (3, H, W), normalised, and their classes.

        Raises:
            ConfigError: If the loader has other workers than was said, which
                would make an epoch of another length.
        """
        worker = get_worker_info()
        found = 0 if worker is None else worker.num_workers
        if found != self.num_workers:
            raise ConfigError(
                f'num_workers of the data set ({self.num_workers}) and of its '
                f'dataloader ({found}) must be equal'
            )
        yield from self.dataset

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self.dataset.set_epoch(epoch)


def _prepare(data: TimmDataset | TimmIterableDataset, transform: dict):
    """Set the transform, how it normalises, and classes where known."""
    data.dataset.transform = create_transform(**transform)
    data.mean = tuple(transform.get('mean', IMAGENET_DEFAULT_MEAN))
    data.std = tuple(transform.get('std', IMAGENET_DEFAULT_STD))
    data.class_to_idx = class_names(data.dataset)
