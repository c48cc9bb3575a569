"""Compressed ViTs as OpenMMLab backbones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from mmvitcompress.arch.base import Arch
from mmvitcompress.arch.windows import quarter_ends
from mmvitcompress.channels import attach_compactors
from mmvitcompress.checkpoints.fill import fill_backbone, reconcile
from mmvitcompress.checkpoints.recognise import VIT
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.backbones.parts import (
    Backbone,
    check_frozen,
    check_methods,
    check_no_loading,
    has_all_channels,
    log,
    need_arch,
    note_arch,
    read_weights,
    switched_off,
    wanted_arch,
)
from mmvitcompress.models.vit import ViT
from mmvitcompress.registry import MODELS
from mmvitcompress.tokens import (
    PatchSlimming,
    TokenMap,
    TokenMerging,
    restore,
)
from mmvitcompress.tokens.restore import RestoreMode
from mmvitcompress.utils.checks import output_indices, pair


@MODELS.register_module()
class CompressedViT(Backbone, ViT):
    """A plain ViT whose tokens and channels may be compressed.

    With nothing switched on it is the dense ViT and equals timm's.

    Args:
        arch: Name, dict of values, or path of an arch JSON; see
            :mod:`mmvitcompress.arch.zoo`. Defaults to the checkpoint's.
        img_size: Image size (H, W) that the position embedding is made for,
            in pixels; others are interpolated. Defaults to the arch's.
        token_merging: Layers, or arguments of
            :class:`~mmvitcompress.tokens.TokenMerging`; blocks are counted
            from 1. Defaults to the arch's.
        patch_slimming: Arguments of
            :class:`~mmvitcompress.tokens.PatchSlimming`, such as
            ``dict(layers=(4, 7, 10), keep_rate=0.7)``. Defaults to the arch's.
        checkpoint: Weights to start from, loaded strictly; others' are
            converted. Its widths and shape count, and its token methods where
            none are given here.
        out_indices: Blocks whose outputs are returned, counted from 0;
            negative ones from the end. Defaults to the ends of the four
            quarters of the depth.
        restore: Whether to return full maps, or a
            :class:`~mmvitcompress.tokens.TokenMap` each, for necks that
            restore later. Defaults to True.
        restore_mode: How: 'nearest' or 'bilinear'. Defaults to 'nearest'.
        out_type: 'featmap' or, for classifiers, 'raw': all remaining tokens
            (B, prefix + n, D). Defaults to 'featmap'.
        final_norm: Whether outputs go through the final LayerNorm: True for
            all, 'last' for that of the last block alone, which is what True
            means to MMSegmentation's. Defaults to False.
        drop_path_rate: Stochastic depth of the last block. Defaults to 0.
        frozen_stages: How many blocks to freeze together with all that comes
            before them; 0 freezes the stem only, -1 nothing. Defaults to -1.
        norm_eval: Whether a stem's batch norms keep evaluating. Defaults to
            False.
        with_cp: Whether to recompute blocks to save memory. Defaults to False.
        window_size: Edge, in tokens of the current grid, of the windows that
            patches attend in. Defaults to the arch's.
        global_blocks: Blocks that attend to all tokens all the same, counted
            from 0. Defaults to the ends of the four quarters of the depth.
        compactors: Whether all blocks get CDCP's compactors, for
            :class:`~mmvitcompress.engine.hooks.CDCPHook`. Defaults to False.
        soft_slimming: Whether patch slimming trains its life predictor: in
            training mode all patches stay and are weighted by their lives, in
            evaluation mode they leave as ever. ``frozen_stages`` leaves it
            trainable; see
            :class:`~mmvitcompress.engine.hooks.LifeRegressionHook`. Defaults
            to False.
        init_cfg: Must be None; use ``checkpoint``, which is strict.
        **methods: Arguments of any other token method by its key, see
            :data:`~mmvitcompress.tokens.METHODS`.

    Raises:
        ConfigError: If an argument is out of range.
        CheckpointError: If the checkpoint can't be read or doesn't fit.
    """

    defaults: ClassVar[dict[str, Any]] = {}
    pruned: ClassVar[bool] = False  # by its name
    how_to_make = 'convert a timm or DeiT model by tools/convert_checkpoint.py'

    def __init__(
        self,
        arch: str | dict | Arch | None = None,
        img_size: int | Sequence[int] | None = None,
        token_merging: dict | Sequence[int] | TokenMerging | None = None,
        patch_slimming: dict | PatchSlimming | None = None,
        checkpoint: str | Path | None = None,
        out_indices: int | Sequence[int] | None = None,
        restore: bool = True,
        restore_mode: RestoreMode = 'nearest',
        out_type: Literal['featmap', 'raw'] = 'featmap',
        final_norm: bool | Literal['last'] = False,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        window_size: int | None = None,
        global_blocks: Sequence[int] | None = None,
        compactors: bool = False,
        soft_slimming: bool = False,
        init_cfg: Any = None,
        **methods,
    ):
        check_no_loading(init_cfg, methods)
        check_methods(type(self).__name__, methods)
        self.soft_slimming = soft_slimming
        methods |= dict(
            token_merging=token_merging, patch_slimming=patch_slimming
        )
        if img_size is not None:
            img_size = pair('img_size', img_size)
        windows = dict(window_size=window_size, global_blocks=global_blocks)
        trained = wanted_arch(VIT, arch, **windows)
        # methods that derive their values from costs do so at this size
        size = None if arch is None else img_size
        wanted = wanted_arch(VIT, arch, img_size=size, **windows, **methods)
        weights, resolved = None, wanted
        if checkpoint is not None:
            weights = read_weights(
                VIT, checkpoint, trained, self.how_to_make, img_size
            )
            resolved = reconcile(
                weights,
                wanted,
                log,
                training=soft_slimming,
                off=switched_off(methods),
            )
        resolved = need_arch(VIT, resolved)
        if img_size is not None:
            resolved = resolved.replace(img_size=img_size)
        for key, value in self.defaults.items():
            # what this named form is about, where nothing was said
            if methods.get(key) is None and getattr(resolved, key) is None:
                value = value(resolved) if callable(value) else value
                resolved = resolved.replace(**{key: value})

        if out_indices is None:
            out_indices = quarter_ends(resolved.depth)
        self.out_indices = output_indices(out_indices, resolved.depth, 'block')
        last = resolved.depth - 1
        if final_norm == 'last' and last not in self.out_indices:
            raise ConfigError(
                f"final_norm='last' norms block {last} (counted from 0), but "
                f'out_indices={self.out_indices} lacks it: add it, or set '
                'final_norm=False'
            )
        super().__init__(
            resolved,
            depth=max(self.out_indices) + 1,
            final_norm=final_norm,
            drop_path_rate=drop_path_rate,
            with_cp=with_cp,
            training=soft_slimming,
        )
        check_frozen(frozen_stages, len(self.blocks))
        self.restore = restore
        self.restore_mode = restore_mode
        self.out_type = out_type
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.pretrained_cfg = {}
        if weights is not None:
            self.pretrained_cfg = weights.pretrained_cfg
            fill_backbone(self, weights, log, training=soft_slimming)
        if compactors:
            attach_compactors(self)
        elif self.pruned and has_all_channels(resolved):
            log(
                f'{type(self).__name__} has all channels of the dense model: '
                'its checkpoint brings pruned ones, compactors=True prunes '
                f'them; {self.how_to_make}'
            )
        self._register_state_dict_hook(note_arch)
        self._freeze()

    # -- training -----------------------------------------------------------

    def _frozen(self) -> list[nn.Module | nn.Parameter]:
        if self.frozen_stages < 0:
            return []
        tokens = (
            self.cls_token,
            self.dist_token,
            self.reg_token,
            self.pos_embed,
        )
        frozen = [self.patch_embed, self.norm_pre]
        frozen += [token for token in tokens if token is not None]
        for index in range(self.frozen_stages):
            frozen.append(self.blocks[index])
            for method in self.methods:
                names = method.parts_of(index + 1)
                frozen += map(method.get_submodule, names)
        return frozen

    def get_layer_depth(
        self, param_name: str, prefix: str = ''
    ) -> tuple[int, int]:
        """Where a parameter stands, for layer-wise learning rate decay.

        Args:
            param_name: Name of a parameter of the whole model.
            prefix: What comes before this backbone's names. Defaults to ''.

        Returns:
            The layer (0: all before the blocks, l: block l from 1 and the
            merge before it, depth + 1: the rest) and the number of layers.
        """
        last = len(self.blocks) + 1
        if not param_name.startswith(prefix):
            return last, last + 1
        name = param_name[len(prefix) :]
        head, _, rest = name.partition('.')
        if head == 'blocks':
            return int(rest.split('.')[0]) + 1, last + 1
        if head in self.method_keys:
            return getattr(self, head).layer_of(rest), last + 1
        return (last if head == 'norm' else 0), last + 1

    # -- forward ------------------------------------------------------------

    def forward(self, x: Tensor) -> tuple[Tensor | TokenMap, ...]:
        """Images (B, 3, H, W) → one output for each of ``out_indices``.

        Returns:
            Full maps (B, D, ⌈H/p⌉, ⌈W/p⌉); with ``restore=False`` a
            :class:`~mmvitcompress.tokens.TokenMap` each; with
            ``out_type='raw'`` tokens (B, prefix + n, D).

        Raises:
            ConfigError: If the image is smaller than one patch.
        """
        return tuple([self._output(*output) for output in self._outputs(x)])

    def _output(self, index: int, tokens: Tensor, state) -> Tensor | TokenMap:
        if self.out_type == 'raw':
            return tokens
        tokens = tokens[:, self.num_prefix_tokens :]
        norm = self.norm_of(index)
        if norm is not None:
            state = state.apply(norm)
        if not self.restore:
            return TokenMap(tokens, state)
        return restore(tokens, state, self.restore_mode)
