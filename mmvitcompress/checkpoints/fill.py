"""Fill backbones: settle the arch with the config, then load strictly."""

from collections.abc import Collection

from torch import Tensor
from torch.nn.functional import interpolate

from mmvitcompress.arch.base import Arch
from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.checkpoints.load import (
    Log,
    load_strict,
    method_parts,
    refuse_untrained,
)
from mmvitcompress.checkpoints.names import HEAD_PREFIXES, TABLE
from mmvitcompress.checkpoints.recognise import VIT, Weights
from mmvitcompress.errors import CheckpointError
from mmvitcompress.models.layers.positions import resample_position
from mmvitcompress.models.swin import Swin
from mmvitcompress.models.vit import ViT
from mmvitcompress.tokens import METHODS

# what a checkpoint and the arch that the config names must agree in
_IDENTITY = {
    'vit': (
        'embed_dim',
        'depth',
        'num_heads',
        'head_dim',
        'patch_size',
        'in_chans',
        'stem',
        'stem_dim',
        'class_token',
        'dist_token',
        'reg_tokens',
        'layer_scale',
        'qk_norm',
        'rope',
        'mlp',
        'mlp_norm',
        'attn_norm',
        'act',
        'patch_bias',
        'pre_norm',
    ),
    'swin': (
        'embed_dim',
        'depths',
        'num_heads',
        'window_size',
        'patch_size',
        'in_chans',
        'qkv_bias',
    ),
}
_WIDTHS = ('qk_dims', 'v_dims', 'mlp_dims')


def reconcile(
    weights: Weights,
    wanted: Arch | None,
    log: Log,
    new_window: bool = False,
    training: bool = False,
    off: Collection[str] = (),
) -> Arch:
    """The checkpoint's arch, with the token methods that the config asks for.

    Widths are the checkpoint's. So are token methods that the config leaves
    open; those that it names run as it says, if the weights allow it.

    Args:
        weights: The checkpoint.
        wanted: The config's arch, or None if it leaves it open.
        log: Told what of the config does not count.
        new_window: Whether a Swin's position biases may be resized to other
            windows. Defaults to False.
        training: Whether what has to be trained may start untrained.
            Defaults to False.
        off: Keys of token methods that the config switches off.

    Raises:
        CheckpointError: If they don't fit together.
    """
    arch = weights.arch
    if wanted is None:
        return arch
    for name in _IDENTITY[arch.family]:
        ours, theirs = getattr(wanted, name), getattr(arch, name)
        if name == 'window_size' and new_window:
            continue
        if ours != theirs:
            remedy = ''
            if name == 'window_size':
                remedy = (
                    f'; give window_size={ours} beside arch to resize its '
                    'position biases'
                )
            raise CheckpointError(
                f'checkpoint {weights.path!r} is of another arch: its {name} '
                f'is {theirs}, but the config asks for {ours}{remedy}'
            )
    added = _of_use(wanted, arch)
    for name in _WIDTHS:
        ours, theirs = getattr(wanted, name), getattr(arch, name)
        if theirs is None:
            added[name] = ours
        elif ours is not None and theirs != ours:
            log(
                f'{name} of {weights.path} replaces that of the config: '
                f'{theirs}'
            )
    for name in METHODS:
        ours, theirs = getattr(wanted, name), getattr(arch, name)
        added[name] = runs = None if name in off else ours or theirs
        if runs != theirs:
            log(
                f'{name} runs as the config says: {runs}; {weights.path} has '
                f'{theirs}'
            )
        elif theirs is not None and ours is None:
            log(f'{name} runs as {weights.path} says: {theirs}')
    resolved = arch.replace(**added)
    new, _ = method_parts(resolved, weights)
    if not training:
        refuse_untrained(resolved, new, weights.path)
    return resolved


def _of_use(wanted: Arch, arch: Arch) -> dict:
    """What is a matter of use, not of weights: the config's count."""
    if not isinstance(wanted, ViTArch):
        return dict(pad_first=wanted.pad_first or arch.pad_first)
    if wanted.window_size is None:
        return {}
    names = ('window_size', 'global_blocks')
    return {name: getattr(wanted, name) for name in names}


def fill_backbone(
    model: ViT | Swin, weights: Weights, log: Log, training: bool = False
) -> None:
    """Load a backbone strictly; positions and their biases are resized.

    A head is ignored, and so is what the model was built without. New merges
    and a Swin's output norms ``norm{i}`` may start anew.

    Args:
        model: A backbone of the weights' family.
        weights: The checkpoint.
        log: Told what was loaded, resized, and what starts anew.
        training: Whether what has to be trained may start untrained.
            Defaults to False.

    Raises:
        CheckpointError: If anything doesn't fit.
    """
    source, target = weights.arch, model.arch
    for line in weights.notes:
        log(line)
    new, unused = method_parts(target, weights)
    may_start = {
        spec.start: new[spec.key]
        for spec in target.reductions
        if spec.key in new and (training or not spec.untrained)
    }
    unused += HEAD_PREFIXES
    if weights.family is VIT:
        if resize_pos_embed(weights.tensors, source, target):
            log(
                f'position embedding of {weights.path} resized from '
                f'{source.pos_grid} to {target.pos_grid}'
            )
        built, last = len(model.blocks), source.depth
        layers = ('blocks', *METHODS)
    else:
        _resize_tables(weights, target.window_size, log)
        built, last = len(model.layers), len(source.depths)
        layers = ('layers',)
        # an ImageNet checkpoint has none: they start as plain LayerNorms
        norms = tuple(f'norm{i}.' for i in range(last))
        may_start['the norms of the outputs start anew'] = norms
        unused += norms
        _take_last_norm(model, weights.tensors, last - 1)
    unused += [f'{name}.{i}.' for name in layers for i in range(built, last)]
    known = {spec.key for spec in (*source.reductions, *target.reductions)}
    unused += [f'{key}.' for key in known if key not in model.method_keys]
    if model.norm is None:
        unused.append('norm.')
    new = load_strict(
        model,
        weights.tensors,
        weights.path,
        may_miss=sum(may_start.values(), ()),
        may_ignore=unused,
    )
    notes = [
        f'; {note}'
        for note, prefixes in may_start.items()
        if any(name.startswith(prefixes) for name in new)
    ]
    log(f'backbone loaded from {weights.path}{"".join(notes)}')


def _take_last_norm(model: Swin, tensors: dict[str, Tensor], last: int):
    """MMPretrain calls a classifier's norm by the output: ``norm3``."""
    for part in ('weight', 'bias'):
        norm = tensors.get(f'norm{last}.{part}')
        if model.norm is not None and norm is not None:
            tensors.setdefault(f'norm.{part}', norm)


def resize_pos_embed(
    state_dict: dict[str, Tensor], source: ViTArch, target: ViTArch
) -> bool:
    """Resize the position embedding in place to the grid of ``target``.

    Returns:
        Whether it had to be resized.
    """
    if 'pos_embed' not in state_dict or source.pos_grid == target.pos_grid:
        return False
    prefix = source.num_prefix_tokens if source.pos_embed == 'all' else 0
    state_dict['pos_embed'] = resample_position(
        state_dict['pos_embed'], source.pos_grid, target.pos_grid, prefix
    )
    return True


def _resize_tables(weights: Weights, new: int, log: Log) -> None:
    """Interpolate position biases, bicubically as Swin's authors do."""
    old, tensors = weights.arch.window_size, weights.tensors
    if old == new:
        return
    for key, table in tensors.items():
        if key.endswith(TABLE):
            offsets = table.T.unflatten(1, (2 * old - 1, -1))[None]
            offsets = interpolate(offsets, [2 * new - 1] * 2, mode='bicubic')
            tensors[key] = offsets[0].flatten(1).T.contiguous()
    log(
        f'position biases of {weights.path} resized from windows of {old} to '
        f'{new}'
    )
