"""Image classification data, read and augmented by timm."""

import hashlib
from pathlib import Path

from timm.data import create_dataset, create_transform
from timm.data.readers.reader_image_folder import ReaderImageFolder
from torch import Tensor
from torch.utils.data import Dataset

from mmvitcompress.errors import ConfigError, DataError
from mmvitcompress.registry import DATASETS


@DATASETS.register_module()
class TimmDataset(Dataset):
    """A data set that timm reads, with a transform that timm makes.

    Args:
        data_root: Folder of the data; for an ImageFolder, the one that holds
            the splits.
        split: Such as 'train' or 'val'.
        name: As timm's ``create_dataset`` takes it: '' for an ImageFolder
            (which may lie in tar files), 'wds/…', 'hfds/…' and so on.
            Defaults to ''.
        transform: Arguments of timm's ``create_transform``, such as
            ``dict(input_size=224, is_training=True, re_prob=0.25)``.
        hold_out: Share of the images of a folder that is set aside, where
            there is no validation set; by a hash of their file names, so that
            it is always the same. Defaults to 0.
        held_out: Whether to read the images that are set aside, and not the
            others. Defaults to False.
        **kwargs: Further arguments of ``create_dataset``.

    Raises:
        ConfigError: If ``hold_out`` is no share, or data aren't files.
        DataError: If there is nothing to read.
    """

    def __init__(
        self,
        data_root: str,
        split: str,
        name: str = '',
        transform: dict | None = None,
        hold_out: float = 0.0,
        held_out: bool = False,
        **kwargs,
    ):
        if not name and not Path(data_root, split).is_dir():
            raise DataError(
                f'no folder {str(Path(data_root, split))!r}, where the '
                f'{split} images should lie, one folder a class; set '
                "the data set's data_root"
            )
        try:
            self.dataset = create_dataset(
                name, root=data_root, split=split, **kwargs
            )
        except RuntimeError as error:  # timm's way to say 'no images'
            raise DataError(f'{data_root!r}, {split}: {error}') from error
        self.dataset.transform = create_transform(**(transform or {}))
        if hold_out or held_out:
            self._split(hold_out, held_out)

    def _split(self, share: float, held_out: bool) -> None:
        if not 0 < share < 1:
            raise ConfigError(f'hold_out must lie in (0, 1), but got {share}')
        reader = getattr(self.dataset, 'reader', None)
        if not isinstance(reader, ReaderImageFolder):
            raise ConfigError(
                'hold_out needs a folder of images, but timm reads '
                f'{type(reader).__name__}'
            )
        reader.samples = [
            (path, target)
            for path, target in reader.samples
            if (_fraction(Path(path).name) < share) == held_out
        ]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Image (3, H, W), normalised, and its class."""
        return self.dataset[index]


def _fraction(name: str) -> float:
    """A number in [0, 1) that looks random, but hangs on the name alone."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 16**8
