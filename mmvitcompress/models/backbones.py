"""Compressed ViTs as OpenMMLab backbones."""

from collections.abc import Sequence

from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmvitcompress.arch import ViTArch
from mmvitcompress.archs import get_arch
from mmvitcompress.channels import attach_compactors
from mmvitcompress.checkpoint import (
    checkpoint_arch,
    load_strict,
    read_checkpoint,
    resize_pos_embed,
)
from mmvitcompress.conversion import HEAD_PREFIXES, infer_arch, to_timm_keys
from mmvitcompress.errors import CheckpointError, ConfigError
from mmvitcompress.models.vit import ViT
from mmvitcompress.registry import MODELS
from mmvitcompress.tokens import (
    PatchSlimming,
    TokenMap,
    TokenMerging,
    restore,
)

# what a checkpoint and the arch that the config names must agree in
_IDENTITY = (
    'embed_dim',
    'depth',
    'num_heads',
    'head_dim',
    'patch_size',
    'stem',
    'stem_dim',
    'class_token',
    'dist_token',
    'reg_tokens',
    'layer_scale',
)
_WIDTHS = ('qk_dims', 'v_dims', 'mlp_dims')
_PREDICTOR = 'patch_slimming.'


@MODELS.register_module()
class CompressedViT(ViT):
    """A plain ViT whose tokens and channels may be compressed.

    With nothing switched on it is the dense ViT and equals timm's.

    Args:
        arch: Name, dict of values, or path of an arch JSON; see
            :mod:`mmvitcompress.archs`. Defaults to what ``checkpoint``
            carries.
        img_size: Image size (H, W) that the position embedding is made for,
            in pixels; other sizes are interpolated on the fly. Defaults to
            the arch's.
        token_merging: Arguments of
            :class:`~mmvitcompress.tokens.specs.TokenMerging`, such as
            ``dict(layers=(5, 8), directions='alternate')``; blocks are
            counted from 1. Defaults to the arch's.
        patch_slimming: Arguments of
            :class:`~mmvitcompress.tokens.specs.PatchSlimming`, such as
            ``dict(base_layer=4, layers=(4, 7, 10), keep_rate=0.7)``. Defaults
            to the arch's.
        checkpoint: Weights to start from. A pruned checkpoint carries its
            arch, which wins over the arguments above (``img_size``
            excepted); one of timm or DeiT is converted. Loading is strict.
        out_indices: Blocks whose outputs are returned, counted from 0;
            negative ones from the end. Defaults to the ends of the four
            quarters of the depth.
        restore: Whether to return full maps; if not, each output is a
            :class:`~mmvitcompress.tokens.TokenMap` for the necks that restore
            later. Defaults to True.
        restore_mode: How merges are undone, 'nearest' or 'bilinear'.
            Defaults to 'nearest'.
        out_type: 'featmap' or, for classifiers, 'raw': all remaining tokens
            (B, prefix + n, D). Defaults to 'featmap'.
        final_norm: Whether outputs go through the final LayerNorm. Defaults
            to False.
        drop_path_rate: Stochastic depth of the last block. Defaults to 0.
        frozen_stages: How many blocks to freeze together with all that comes
            before them; 0 freezes the stem only, -1 nothing. Defaults to -1.
        norm_eval: Whether batch norms (of a convolutional stem) stay in
            evaluation mode. Defaults to False.
        with_cp: Whether to recompute blocks in the backward pass to save
            memory. Defaults to False.
        compactors: Whether to put CDCP's compactors into all blocks, for
            :class:`~mmvitcompress.training.CDCPHook` to prune channels while
            the model trains. Defaults to False.
        soft_slimming: Whether patch slimming trains its life predictor: in
            training mode all patches stay and are weighted by their lives, in
            evaluation mode they leave as ever. A checkpoint without a
            predictor gets a new one. ``frozen_stages`` leaves it trainable;
            see :class:`~mmvitcompress.training.LifeRegressionHook`. Defaults
            to False.
        init_cfg: Must be None, since MMEngine's loading is not strict; use
            ``checkpoint``.

    Raises:
        ConfigError: If an argument is out of range.
        CheckpointError: If the checkpoint is missing, unsafe, damaged, or of
            another arch.
    """

    default_merging: dict[int, tuple[int, ...]] | None = None
    default_slimming: PatchSlimming | None = None
    how_to_make = 'convert a timm or DeiT model by tools/convert_checkpoint.py'

    def __init__(
        self,
        arch: str | dict | ViTArch | None = None,
        img_size: int | tuple[int, int] | None = None,
        token_merging: dict | TokenMerging | None = None,
        patch_slimming: dict | PatchSlimming | None = None,
        checkpoint: str | None = None,
        out_indices: Sequence[int] | None = None,
        restore: bool = True,
        restore_mode: str = 'nearest',
        out_type: str = 'featmap',
        final_norm: bool = False,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        compactors: bool = False,
        soft_slimming: bool = False,
        init_cfg: None = None,
    ):
        if init_cfg is not None:
            raise ConfigError(
                'init_cfg is not supported, since it skips what does not fit; '
                f'use checkpoint=… instead, but got {init_cfg}'
            )
        if out_type not in ('featmap', 'raw'):
            raise ConfigError(
                f"out_type must be 'featmap' or 'raw', but got {out_type!r}"
            )
        self.soft_slimming = soft_slimming
        wanted = _plain_arch(arch, token_merging, patch_slimming)
        state_dict, source, resolved = {}, None, wanted
        if checkpoint is not None:
            state_dict, source = self._read(checkpoint, wanted)
            resolved = _reconcile(source, wanted, checkpoint, soft_slimming)
        if resolved is None:
            raise ConfigError(
                'arch is needed where no checkpoint carries one; for example '
                "arch='deit_small'"
            )
        resolved = self._with_defaults(resolved)
        if img_size is not None:
            resolved = resolved.replace(img_size=img_size)

        self.out_indices = _out_indices(out_indices, resolved.depth)
        super().__init__(
            resolved,
            depth=max(self.out_indices) + 1,
            final_norm=final_norm,
            drop_path_rate=drop_path_rate,
            with_cp=with_cp,
            soft_slimming=soft_slimming,
        )
        if not -1 <= frozen_stages <= len(self.blocks):
            raise ConfigError(
                f'frozen_stages must lie in -1..{len(self.blocks)}, but got '
                f'{frozen_stages}'
            )
        self.restore = restore
        self.restore_mode = restore_mode
        self.out_type = out_type
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        if checkpoint is not None:
            self._load(state_dict, source, checkpoint)
        if compactors:
            attach_compactors(self)
        self._freeze()

    # -- checkpoint ---------------------------------------------------------

    def _read(self, path: str, wanted: ViTArch | None):
        try:
            state_dict, meta = read_checkpoint(path)
        except CheckpointError as error:
            if 'not found' not in str(error):
                raise
            raise CheckpointError(
                f'{error}: {self.how_to_make}, or point elsewhere with '
                '--cfg-options model.backbone.checkpoint=PATH (None starts '
                'from random weights)'
            ) from None
        state_dict = to_timm_keys(state_dict)
        source = checkpoint_arch(meta, path)
        if source is None:
            source = infer_arch(state_dict, wanted, path)
            if wanted and any(k.startswith(_PREDICTOR) for k in state_dict):
                # when its patches leave can't be seen in tensors
                source = source.replace(patch_slimming=wanted.patch_slimming)
        return state_dict, source

    def _load(self, state_dict: dict, source: ViTArch, path: str) -> None:
        if resize_pos_embed(state_dict, source, self.arch):
            print_log(
                f'position embedding of {path} resized from '
                f'{source.pos_grid} to {self.arch.pos_grid}',
                'current',
            )
        unused = [
            f'{part}.{index}.'
            for part in ('blocks', 'token_merging')
            for index in range(len(self.blocks), source.depth)
        ]
        if self.norm is None:
            unused.append('norm.')
        if self.patch_slimming is None:
            unused.append(_PREDICTOR)
        added = []
        if source.token_merging is None:
            added.append('token_merging.')  # starts as mean of each group
        if source.patch_slimming is None and self.soft_slimming:
            added.append(_PREDICTOR)
        new = load_strict(
            self,
            state_dict,
            path,
            may_miss=tuple(added),
            may_ignore=(*HEAD_PREFIXES, *unused),
        )
        note = ''
        if any(name.startswith('token_merging.') for name in new):
            note += '; new merges start as means'
        if any(name.startswith(_PREDICTOR) for name in new):
            note += '; the life predictor starts untrained'
        print_log(f'backbone loaded from {path}{note}', 'current')

    def _with_defaults(self, arch: ViTArch) -> ViTArch:
        """Fill in what this named form is about, where nothing was said."""
        if self.default_merging is not None and arch.token_merging is None:
            layers = self.default_merging.get(
                arch.embed_dim, self.default_merging[0]
            )
            arch = arch.replace(token_merging=TokenMerging(layers))
        if self.default_slimming is not None and arch.patch_slimming is None:
            arch = arch.replace(patch_slimming=self.default_slimming)
        return arch

    # -- training -----------------------------------------------------------

    def _freeze(self) -> None:
        for module in self._frozen():
            module.requires_grad_(False)
            if isinstance(module, nn.Module):
                module.eval()

    def _frozen(self) -> list[nn.Module | nn.Parameter]:
        if self.frozen_stages < 0:
            return []
        tokens = (
            self.cls_token,
            self.dist_token,
            self.reg_token,
            self.pos_embed,
        )
        frozen = [self.patch_embed, *(t for t in tokens if t is not None)]
        for index in range(self.frozen_stages):
            frozen.append(self.blocks[index])
            if str(index) in self.token_merging:
                frozen.append(self.token_merging[str(index)])
        return frozen

    def train(self, mode: bool = True) -> 'CompressedViT':
        """Set the mode; frozen blocks stay in evaluation mode."""
        super().train(mode)
        if mode:
            self._freeze()
            if self.norm_eval:
                for module in self.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()
        return self

    def get_layer_depth(
        self, param_name: str, prefix: str = ''
    ) -> tuple[int, int]:
        """Where a parameter stands, for layer-wise learning rate decay.

        Args:
            param_name: Name of a parameter of the whole model.
            prefix: What comes before this backbone's names. Defaults to ''.

        Returns:
            The layer (0: all before the blocks, l: block l counted from 1 and
            the merge before it, depth + 1: the rest) and the number of
            layers.
        """
        last = len(self.blocks) + 1
        if not param_name.startswith(prefix):
            return last, last + 1
        name = param_name[len(prefix) :]
        head, _, rest = name.partition('.')
        if head in ('blocks', 'token_merging'):
            return int(rest.split('.')[0]) + 1, last + 1
        if head == 'patch_slimming':
            return self.arch.patch_slimming.base_layer, last + 1
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
        outputs = dict(
            zip(sorted(self.out_indices), super().forward(x, self.out_indices))
        )
        if self.out_type == 'raw':
            return tuple(outputs[i][0] for i in self.out_indices)
        return tuple([self._output(*outputs[i]) for i in self.out_indices])

    def _output(self, tokens: Tensor, state) -> Tensor | TokenMap:
        tokens = tokens[:, self.num_prefix_tokens :]
        if not self.restore:
            return TokenMap(tokens, state)
        return restore(tokens, state, self.restore_mode)


def _plain_arch(arch, token_merging, patch_slimming) -> ViTArch | None:
    """The arch that the config asks for, or None if it leaves it open."""
    changes = {}
    if token_merging is not None:
        changes['token_merging'] = token_merging
    if patch_slimming is not None:
        changes['patch_slimming'] = patch_slimming
    if arch is None:
        if changes:
            raise ConfigError(
                f'{next(iter(changes))} needs an arch to apply to; for '
                "example arch='deit_small'"
            )
        return None
    return get_arch(arch).replace(**changes)


def _reconcile(
    source: ViTArch,
    wanted: ViTArch | None,
    path: str,
    soft_slimming: bool = False,
) -> ViTArch:
    """The checkpoint's arch, with what only the config asks for added."""
    if wanted is None:
        return source
    for name in _IDENTITY:
        ours, theirs = getattr(wanted, name), getattr(source, name)
        if ours != theirs:
            raise CheckpointError(
                f'checkpoint {path!r} is of another arch: its {name} is '
                f'{theirs}, but the config asks for {ours}'
            )
    for name in (*_WIDTHS, 'token_merging', 'patch_slimming'):
        ours, theirs = getattr(wanted, name), getattr(source, name)
        if theirs is None and ours is not None:
            if name == 'patch_slimming' and not soft_slimming:
                raise CheckpointError(
                    f'checkpoint {path!r} has no life predictor, which '
                    'patch_slimming needs: train one by a lifeslim config '
                    '(soft_slimming=True), or leave patch_slimming away'
                )
            source = source.replace(**{name: ours})
        elif ours is not None and theirs != ours:
            print_log(
                f'{name} of {path} replaces that of the config: {theirs}',
                'current',
            )
    return source


def _out_indices(
    out_indices: Sequence[int] | None, depth: int
) -> tuple[int, ...]:
    if out_indices is None:
        ends = {depth * (i + 1) // 4 - 1 for i in range(4)}
        out_indices = sorted(end for end in ends if end >= 0)
    if isinstance(out_indices, int):
        out_indices = [out_indices]
    indices = []
    for index in out_indices:
        if not -depth <= index < depth:
            raise ConfigError(
                f'out_indices must lie in 0..{depth - 1} (blocks are counted '
                f'from 0 here), but got {index}'
            )
        indices.append(index % depth)
    if not indices or len(set(indices)) != len(indices):
        raise ConfigError(
            'out_indices must name at least one block, and each only once, '
            f'but got {list(out_indices)}'
        )
    return tuple(indices)


_PAPER_MERGES = {192: (4, 8, 10), 0: (5, 8)}  # by width; CAIT Tables I and V
_MAKE = 'make it by tools/train.py configs/imagenet/{}_deit_s_in1k.py'
_PRUNE = f'{_MAKE} and tools/export_pruned.py'


@MODELS.register_module()
class ATMEDeiT(CompressedViT):
    """DeiT whose tokens are merged; by default where the paper merges."""

    default_merging = _PAPER_MERGES
    how_to_make = _MAKE.format('atme')


@MODELS.register_module()
class CDCPDeiT(CompressedViT):
    """DeiT whose channels were pruned; the checkpoint brings the widths."""

    how_to_make = _PRUNE.format('cdcp')


@MODELS.register_module()
class CAITDeiT(CompressedViT):
    """DeiT with merged tokens and pruned channels (CAIT)."""

    default_merging = _PAPER_MERGES
    how_to_make = _PRUNE.format('cait')


@MODELS.register_module()
class LifeSlimDeiT(CompressedViT):
    """DeiT whose patches leave when their lives are over."""

    default_slimming = PatchSlimming()
    how_to_make = _PRUNE.format('lifeslim')
