"""Two processes that share a batch, against one that has all of it."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmvitcompress.analysis.gpu.plan import load_shipped
from mmvitcompress.analysis.inference import image_channels
from mmvitcompress.errors import ConfigError

PROCESSES = 2
_IMAGES = 4
_FILE = 'gradients.npz'


def gradients_agree(
    config: str, device: torch.device, shape: tuple[int, int]
) -> dict[str, Any]:
    """Gradients of a backbone from two processes, each with half of the
    images, against those from one.

    Args:
        config: Name of a shipped config.
        device: 'cuda' uses two cards and NCCL, 'cpu' Gloo.
        shape: Height and width of images.

    Returns:
        ``backend``; ``relative_error``, the largest difference as a fraction
        of the largest gradient.

    Raises:
        ConfigError: If there are not two cards.
    """
    if device.type == 'cuda' and torch.cuda.device_count() < PROCESSES:
        raise ConfigError(
            f'needs {PROCESSES} cards, and there is '
            f'{torch.cuda.device_count()}'
        )
    backend = 'nccl' if device.type == 'cuda' else 'gloo'
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(
            _work,
            (config, backend, shape, folder),
            nprocs=PROCESSES,
        )
        file = np.load(Path(folder, _FILE))
        both = [torch.from_numpy(file[name]) for name in file.files]
    model, images = _model(config, shape)
    alone = _gradients(model, model.to(device), images.to(device))
    largest = max(each.abs().max() for each in alone)
    worst = max((a - b).abs().max() for a, b in zip(both, alone, strict=True))
    return dict(backend=backend, relative_error=(worst / largest).item())


def _work(
    rank: int,
    config: str,
    backend: str,
    shape: tuple[int, int],
    folder: str,
) -> None:
    torch.distributed.init_process_group(
        backend,
        init_method=f'file://{folder}/store',
        rank=rank,
        world_size=PROCESSES,
    )
    device = torch.device('cpu')
    if backend == 'nccl':
        device = torch.device('cuda', rank)
        torch.cuda.set_device(device)
    model, images = _model(config, shape)
    share = images.chunk(PROCESSES)[rank].to(device)
    replica = DistributedDataParallel(model.to(device))
    gradients = _gradients(model, replica, share)
    if rank == 0:
        np.savez(Path(folder, _FILE), *(each.numpy() for each in gradients))
    torch.distributed.destroy_process_group()


def _model(config: str, shape: tuple[int, int]) -> tuple[nn.Module, Tensor]:
    """Backbone and neck, the same in each process, and images for it."""
    model = load_shipped(config)
    encoder = nn.Sequential(model.backbone, model.neck)
    generator = torch.Generator().manual_seed(0)
    size = (_IMAGES, image_channels(model), *shape)
    # norms of batches would see other images in each process
    return encoder.eval(), torch.randn(size, generator=generator)


def _gradients(
    model: nn.Module, run: nn.Module, images: Tensor
) -> list[Tensor]:
    """Of the mean square of all outputs, on the CPU."""
    sum(each.square().mean() for each in run(images)).backward()
    return [p.grad.cpu() for p in model.parameters() if p.grad is not None]
