"""Training on several processes without CUDA, over gloo.

MMEngine 0.10's launcher calls ``torch.cuda.set_device``, hands
``DistributedDataParallel`` a device id, and torch's ``SyncBatchNorm`` refuses
tensors on the CPU. The result here is that of one process with the whole
batch, so that what will run on many GPUs can be tried on a laptop.
"""

import os

import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmvitcompress.errors import ConfigError
from mmvitcompress.utils.batch_norm import batch_norm


def enable_cpu_ddp(cfg: Config, launcher: str) -> bool:
    """Prepare several processes if there is no accelerator to run on.

    Called before MMEngine's ``Runner`` is built, which then finds the process
    group and the model wrapper.

    Args:
        cfg: The run's config; its ``model_wrapper_cfg`` is set.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.

    Returns:
        Whether anything had to be done.

    Raises:
        ConfigError: If the launcher needs CUDA or if it did not start this
            process.
    """
    if launcher == 'none' or get_device() != 'cpu':
        return False
    if launcher != 'pytorch':
        raise ConfigError(
            "without CUDA the launcher must be 'none' or 'pytorch', but got "
            f'{launcher!r}'
        )
    if 'RANK' not in os.environ:
        raise ConfigError(
            '--launcher pytorch was given, but torchrun did not start this '
            'process; use tools/dist_train.sh or tools/dist_test.sh'
        )
    if not dist.is_initialized():
        dist.init_process_group('gloo')
    cfg.model_wrapper_cfg = {
        'find_unused_parameters': cfg.get('find_unused_parameters', False),
        'broadcast_buffers': False,
        **(cfg.get('model_wrapper_cfg') or {}),
        'type': 'CPUDistributedDataParallel',
    }
    return True


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """MMEngine's wrapper for models on the CPU.

    Args:
        module: The model; its SyncBN layers are replaced.
        device_ids: Ignored; MMEngine's ``Runner`` always gives it.
        **kwargs: See ``torch.nn.parallel.DistributedDataParallel``.
    """

    def __init__(
        self,
        module: nn.Module,
        device_ids: list[int] | None = None,
        **kwargs,
    ) -> None:
        super().__init__(module=use_cpu_sync_bn(module), **kwargs)


class CPUSyncBatchNorm(_BatchNorm):
    """SyncBN for tensors on the CPU: one batch norm over all processes.

    It is no ``nn.SyncBatchNorm``, since ``DistributedDataParallel`` refuses
    those on the CPU. Arguments are those of ``nn.BatchNorm2d``.

    Attributes:
        process_group: The processes; None stands for all.
    """

    process_group: dist.ProcessGroup | None = None

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(
                f'input must be (B, C, ...), but got {input.dim()}D'
            )

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``input`` (B, C, ...) over the batches of all processes.

        In ``eval()`` and on a single process this is an ordinary batch norm.
        """
        synchronizes = self.training and dist.is_initialized()
        if not synchronizes or dist.get_world_size(self.process_group) == 1:
            return super().forward(input)
        self._check_input_dim(input)
        # (positions, C)
        rows = input.movedim(1, -1)
        normed = batch_norm(rows.flatten(0, -2), self)
        return normed.view(rows.shape).movedim(-1, 1)


def use_cpu_sync_bn(module: nn.Module) -> nn.Module:
    """Replace every ``nn.SyncBatchNorm`` in ``module``, keeping parameters.

    Returns:
        ``module``, or what replaces it.
    """
    if isinstance(module, nn.SyncBatchNorm):
        return _to_cpu_sync_bn(module)
    for name, child in module.named_children():
        setattr(module, name, use_cpu_sync_bn(child))
    return module


def _to_cpu_sync_bn(norm: nn.SyncBatchNorm) -> CPUSyncBatchNorm:
    new = CPUSyncBatchNorm(norm.num_features)
    vars(new).update(vars(norm))  # settings, parameters, buffers, mode
    return new
