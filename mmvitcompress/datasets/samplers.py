"""Samplers for training."""

from collections.abc import Sized

from mmengine.dist import get_dist_info, sync_random_seed
from timm.data.distributed_sampler import RepeatAugSampler
from torch.utils.data import IterableDataset

from mmvitcompress.errors import ConfigError
from mmvitcompress.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class RepeatedAugSampler(RepeatAugSampler):
    """Shuffles, and shows every image several times, as DeiT's training does.

    The copies of an image, which are augmented differently, go to different
    processes. An epoch stays as long as without repeats, so that it sees
    1/``num_repeats`` of the images.

    Args:
        dataset: What to draw from.
        num_repeats: How often an image is shown.
        shuffle: Whether to shuffle.
        seed: Of the shuffling; the order hangs on it and the epoch alone.
            Defaults to one that all processes agree on.
        selected_round: The length of an epoch over all processes is rounded
            down to a multiple of this, if there are as many images; 0 for no
            rounding. 256 is timm's and DeiT's.

    Raises:
        ConfigError: If images can't be drawn, or are not repeated at all.
    """

    def __init__(
        self,
        dataset: Sized,
        num_repeats: int | float = 3,
        shuffle: bool = True,
        seed: int | None = None,
        selected_round: int = 256,
    ):
        if isinstance(dataset, IterableDataset):
            raise ConfigError(
                'RepeatedAugSampler draws images in any order, but '
                f'{type(dataset).__name__} can only be read in sequence: set '
                'sampler=None'
            )
        if num_repeats < 1:
            raise ConfigError(
                f'num_repeats must be at least 1, but got {num_repeats}'
            )
        # older timm draws nothing from a data set that is smaller
        if len(dataset) < selected_round:
            selected_round = 0
        rank, world_size = get_dist_info()
        super().__init__(
            dataset,
            num_replicas=world_size,
            rank=rank,
            shuffle=shuffle,
            num_repeats=num_repeats,
            selected_round=selected_round,
        )
        self.seed = sync_random_seed() if seed is None else seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; MMEngine does so before each."""
        # timm seeds its generator with the epoch
        super().set_epoch(self.seed + epoch)
