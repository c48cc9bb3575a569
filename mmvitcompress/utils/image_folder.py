"""Images without labels, read and augmented by timm, without OpenMMLab."""

from pathlib import Path

from PIL import Image
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import Dataset

from mmvitcompress.errors import ConfigError, DataError
from mmvitcompress.utils.images import image_files, upright
from mmvitcompress.utils.splits import belongs, check_share


class UnlabelledImages(Dataset):
    """All images in a folder and the folders in it.

    Args:
        data_root: The folder.
        transform: Arguments of timm's ``create_transform``, such as
            ``dict(input_size=(3, 224, 224), is_training=True,
            color_jitter=None)``.
        hold_out: Share of the images that is set aside, by a hash of their
            file names, so that it is always the same. Defaults to 0.
        held_out: Whether to read the images that are set aside, and not the
            others. Defaults to False.

    Raises:
        ConfigError: If there is no such share or transform.
        DataError: If there are no images.
    """

    def __init__(
        self,
        data_root: str | Path,
        transform: dict,
        hold_out: float = 0.0,
        held_out: bool = False,
    ):
        check_share(hold_out, held_out)
        found = image_files(data_root)
        self.files = [f for f in found if belongs(f, hold_out, held_out)]
        if not self.files:
            raise DataError(
                f'none of {len(found)} images in {str(data_root)!r} falls '
                f'into a share of {hold_out}: set a larger hold_out'
            )
        try:
            self.transform = create_transform(**transform)
        except TypeError as error:
            raise ConfigError(f'transform={transform!r}: {error}') from error

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """``inputs``: an image (3, H, W), normalised.

        Raises:
            DataError: If it can't be read.
        """
        path = self.files[index]
        try:
            with Image.open(path) as image:
                image = upright(image).convert('RGB')
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(
                f'image {str(path)!r} cannot be read '
                f'({type(error).__name__}: {error}); fetch it again or take '
                'it out'
            ) from error
        return dict(inputs=self.transform(image))
