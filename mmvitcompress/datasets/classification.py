"""Image classification data, read and augmented by timm."""

from pathlib import Path

from timm.data import create_dataset, create_transform
from torch import Tensor
from torch.utils.data import Dataset

from mmvitcompress.errors import DataError
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
        **kwargs: Further arguments of ``create_dataset``.

    Raises:
        DataError: If there is nothing to read.
    """

    def __init__(
        self,
        data_root: str,
        split: str,
        name: str = '',
        transform: dict | None = None,
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

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Image (3, H, W), normalised, and its class."""
        return self.dataset[index]
