"""The compressed Swin as an OpenMMLab backbone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from mmvitcompress.arch.base import Arch
from mmvitcompress.arch.swin import MERGE_STAGE
from mmvitcompress.channels import attach_compactors
from mmvitcompress.checkpoints.fill import fill_backbone, reconcile
from mmvitcompress.checkpoints.recognise import SWIN
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.backbones.parts import (
    Backbone,
    check_frozen,
    check_methods,
    check_no_loading,
    log,
    need_arch,
    note_arch,
    read_weights,
    switched_off,
    wanted_arch,
)
from mmvitcompress.models.swin import Swin
from mmvitcompress.registry import MODELS
from mmvitcompress.tokens import TokenMap, TokenMerging, restore
from mmvitcompress.tokens.restore import RestoreMode
from mmvitcompress.utils.checks import output_indices


@MODELS.register_module()
class CompressedSwin(Backbone, Swin):
    """A Swin whose tokens and channels may be compressed.

    With nothing switched on it is the dense Swin and equals timm's.

    Args:
        arch: Name, dict of values, or path of an arch JSON; see
            :mod:`mmvitcompress.arch.zoo`. Defaults to the checkpoint's.
        img_size: Image size (H, W) to which the arch's costs refer, in
            pixels. Images of any size are taken. Defaults to the arch's.
        window_size: Edge of the windows, in tokens; the position biases of a
            checkpoint with other windows are resized. Defaults to the arch's.
        token_merging: Layers, or arguments of
            :class:`~mmvitcompress.tokens.TokenMerging`, such as
            ``dict(layers=(5, 6))``; layers are blocks of stage 3, counted
            from 1 within it. Defaults to the arch's.
        checkpoint: Weights to start from, loaded strictly; others' are
            converted. Its widths and shape count, and its token methods where
            none are given here.
        out_indices: Stages whose outputs are returned, counted from 0;
            negative ones from the end. Defaults to all.
        restore: Whether to return full maps; if not, each output is a
            :class:`~mmvitcompress.tokens.TokenMap` for the necks that restore
            later. Defaults to True.
        restore_mode: How merges are undone, 'nearest' or 'bilinear'.
            Defaults to 'nearest'.
        out_type: 'featmap' or, for classifiers, 'raw': the tokens (B, n, D)
            that remain. Defaults to 'featmap'.
        final_norm: Whether the last stage's output goes through the
            classifier's LayerNorm, ``norm``. Defaults to False.
        out_norms: Whether each output gets a LayerNorm of its own, ``norm0``
            to ``norm3``, as in MMSegmentation's and MMDetection's Swin.
            Defaults to True for maps without the final norm.
        drop_path_rate: Stochastic depth of the last block. Defaults to 0.
        frozen_stages: How many stages to freeze together with the stem, their
            merges and norms, and the patch merging after them; 0 freezes the
            stem only, -1 nothing. Defaults to -1.
        with_cp: Whether to recompute blocks when going back, which saves
            memory. Defaults to False.
        compactors: Whether all blocks get CDCP's compactors, for
            :class:`~mmvitcompress.engine.hooks.CDCPHook`. Defaults to False.
        init_cfg: Must be None; use ``checkpoint``, which is strict.
        **methods: Arguments of any other token method made for Swins, by
            its key, see :data:`~mmvitcompress.tokens.METHODS`.

    Attributes:
        out_channels: Channels of each output.

    Raises:
        ConfigError: If an argument is out of range.
        CheckpointError: If the checkpoint is missing, unsafe, damaged, or of
            another arch.
    """

    how_to_make = (
        'convert a Swin by tools/convert_checkpoint.py, or compress one by a '
        'recipe of configs/imagenet'
    )

    def __init__(
        self,
        arch: str | dict | Arch | None = None,
        img_size: int | Sequence[int] | None = None,
        window_size: int | None = None,
        token_merging: dict | Sequence[int] | TokenMerging | None = None,
        checkpoint: str | Path | None = None,
        out_indices: int | Sequence[int] | None = None,
        restore: bool = True,
        restore_mode: RestoreMode = 'nearest',
        out_type: Literal['featmap', 'raw'] = 'featmap',
        final_norm: bool = False,
        out_norms: bool | None = None,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        compactors: bool = False,
        init_cfg: Any = None,
        **methods,
    ):
        check_no_loading(init_cfg, methods)
        check_methods(type(self).__name__, methods)
        wanted = wanted_arch(
            SWIN, arch, token_merging=token_merging, **methods
        )
        weights, resolved = None, wanted
        if checkpoint is not None:
            weights = read_weights(SWIN, checkpoint, wanted, self.how_to_make)
            resolved = reconcile(
                weights,
                wanted,
                log,
                new_window=window_size is not None,
                off=switched_off(methods | dict(token_merging=token_merging)),
            )
        resolved = need_arch(SWIN, resolved)
        if img_size is not None:
            resolved = resolved.replace(img_size=img_size)
        if window_size is not None:
            resolved = resolved.replace(window_size=window_size)

        count = len(resolved.depths)
        if out_indices is None:
            out_indices = range(count)
        self.out_indices = output_indices(out_indices, count, 'stage')
        stages = max(self.out_indices) + 1
        super().__init__(
            resolved,
            stages=stages,
            final_norm=final_norm,
            drop_path_rate=drop_path_rate,
            with_cp=with_cp,
        )
        check_frozen(frozen_stages, stages)
        self.restore = restore
        self.restore_mode = restore_mode
        self.out_type = out_type
        self.frozen_stages = frozen_stages
        self.out_channels = tuple(resolved.dims[i] for i in self.out_indices)
        self._add_out_norms(out_norms)
        self.pretrained_cfg = {}
        if weights is not None:
            self.pretrained_cfg = weights.pretrained_cfg
            fill_backbone(self, weights, log)
        if compactors:
            attach_compactors(self)
        self._register_state_dict_hook(note_arch)
        self._freeze()

    def _add_out_norms(self, out_norms: bool | None) -> None:
        if out_norms is None:
            out_norms = self.out_type == 'featmap' and self.norm is None
        if out_norms and self.norm is not None:
            raise ConfigError(
                'out_norms and final_norm would both normalise the last '
                'output: set one of them to False'
            )
        self.out_norms = out_norms
        if out_norms:
            for index, channels in zip(self.out_indices, self.out_channels):
                norm = nn.LayerNorm(channels, eps=self.arch.norm_eps)
                self.add_module(f'norm{index}', norm)

    # -- training -----------------------------------------------------------

    def _frozen(self) -> list[nn.Module]:
        count = self.frozen_stages
        if count < 0:
            return []
        frozen = [self.patch_embed, *self.layers[:count]]
        if 0 < count < len(self.layers):
            # it ends the last frozen stage, as Swin's authors have it
            frozen.append(self.layers[count].downsample)
        if count > MERGE_STAGE:
            frozen += self.methods
        if self.out_norms:
            frozen += [
                getattr(self, f'norm{index}')
                for index in self.out_indices
                if index < count
            ]
        return frozen

    def get_layer_depth(
        self, param_name: str, prefix: str = ''
    ) -> tuple[int, int]:
        """Where a parameter stands, for layer-wise learning rate decay.

        Args:
            param_name: Name of a parameter of the whole model.
            prefix: What comes before this backbone's names. Defaults to ''.

        Returns:
            The layer (0: the stem, l: block l counted from 1 over all stages
            and the merges before it, the last: the rest) and the number of
            layers.
        """
        depth = sum(len(stage.blocks) for stage in self.layers)
        if not param_name.startswith(prefix):
            return depth + 1, depth + 2
        head, *rest = param_name[len(prefix) :].split('.')
        if head == 'patch_embed':
            layer = 0
        elif head in self.method_keys:
            layer = getattr(self, head).layer_of('.'.join(rest))
            layer = self.arch.layer(MERGE_STAGE, layer - 1)
        elif head == 'layers':
            block = int(rest[2]) if rest[1] == 'blocks' else 0
            layer = self.arch.layer(int(rest[0]), block)
        else:
            layer = depth + 1
        return layer, depth + 2

    # -- forward ------------------------------------------------------------

    def forward(self, x: Tensor) -> tuple[Tensor | TokenMap, ...]:
        """Images (B, 3, H, W) → one output for each of ``out_indices``.

        Returns:
            Full maps (B, D·2ⁱ, ⌈H/(p·2ⁱ)⌉, ⌈W/(p·2ⁱ)⌉) of the stages i; with
            ``restore=False`` a :class:`~mmvitcompress.tokens.TokenMap` each;
            with ``out_type='raw'`` tokens (B, n, D·2ⁱ).

        Raises:
            ConfigError: If the image is smaller than one patch.
        """
        return tuple([self._output(*output) for output in self._outputs(x)])

    def _output(self, index: int, tokens: Tensor, state) -> Tensor | TokenMap:
        if self.out_norms:
            tokens = getattr(self, f'norm{index}')(tokens)
        if self.out_type == 'raw':
            return tokens
        if not self.restore:
            return TokenMap(tokens, state)
        return restore(tokens, state, self.restore_mode)
