"""Narrower blocks in one shot, by the size of the weights or by images.

CDCP learns which channels may go while the model trains; this only looks at
the weights, or at what they do on a hundred images. The result is a start for
fine-tuning, no finished model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from math import lcm

import numpy as np
from numpy import ndarray
from torch import Tensor

from mmvitcompress.api.calibration import Calibration
from mmvitcompress.channels import (
    MacBudget,
    SelectionRules,
    attach_compactors,
    fold,
    select,
    set_kept_,
)
from mmvitcompress.channels.compactors import Kinds
from mmvitcompress.channels.compensation import compensate_all_
from mmvitcompress.channels.constraints import Constraints
from mmvitcompress.channels.importance import (
    CRITERIA,
    magnitudes,
    per_cost,
    random_scores,
)
from mmvitcompress.checkpoints.load import load_strict
from mmvitcompress.errors import ConfigError
from mmvitcompress.models.vit import ViT
from mmvitcompress.utils.checks import (
    check_choice,
    check_positive,
    check_target,
    per_block,
)

_DIMS = ('qk_dims', 'v_dims', 'mlp_dims')
_KEEP = ('qk', 'v', 'mlp')
_RULES = ('min_head_dim', 'min_mlp_dim', 'divisor')


def prune_(
    model: ViT,
    channels: Mapping,
    num_classes: int = 0,
    calibration: Calibration | None = None,
) -> tuple[object, dict[str, Tensor]]:
    """Remove the channels of the smallest weights, or of the least effect.

    Args:
        model: Its layers are exchanged; it is of no use afterwards.
        channels: ``dict(target=0.4)`` for an overall reduction of the MACs,
            with the rules ``min_head_dim``, ``min_mlp_dim``, ``divisor`` (8
            by default) and ``whole_heads``, and ``img_size`` where it isn't
            the arch's;
            ``dict(qk=0.75, v=0.75, mlp=0.6)`` for fractions that all blocks
            keep; or ``dict(qk_dims=48, v_dims=48, mlp_dims=[…])`` for widths.
            With ``criterion``: 'magnitude', of the weights; 'random', by a
            ``seed``; 'taylor' or 'lfs', by what channels do on the images of
            ``calibration``, whole or low-pass filtered; or a function of the
            net, see :mod:`mmvitcompress.channels.importance`, such as
            :func:`~mmvitcompress.channels.importance.taylor` of losses with
            labels. With ``steps=n`` a target is reached in so many steps,
            each of which scores anew what the one before has left.
        num_classes: Outputs of the classifier, which counts for a target.
        calibration: What channels do on images. By default those go whose
            removal adds the least to the map loss (for a target: for the MACs
            that it saves), and the layers after them make up for it
            (:mod:`mmvitcompress.channels.compensation`). Defaults to none.

    Returns:
        The new arch, and tensors under timm's names that fit it.

    Raises:
        ConfigError: If ``channels`` is none of these, or can't be reached.
    """
    if not isinstance(channels, Mapping) or not channels:
        raise ConfigError(
            'channels must be a dict such as dict(target=0.4), but got '
            f'{channels!r}'
        )
    channels = dict(channels)
    steps = channels.pop('steps', 1)
    check_positive('channels.steps', steps)
    if steps > 1 and 'target' not in channels:
        raise ConfigError(
            f'channels.steps={steps} needs a target to come to step by step, '
            f'but got {channels}'
        )
    default = 'taylor' if calibration else 'magnitude'
    criterion = channels.pop('criterion', default)
    seed = channels.pop('seed', 0)
    by_cost = criterion in ('taylor', 'lfs')
    before, demands = None, Constraints.of(model.arch)
    for step in range(1, steps + 1):
        moments = calibration.moments(model) if calibration else None
        scores = _scores(model, criterion, seed, calibration, moments)
        if 'target' in channels:
            options = _known(channels)
            rules, budget, reduction = _to_reach(
                model.arch, num_classes, before, step / steps, **options
            )
            before = before or budget
            if by_cost:
                scores = per_cost(scores, budget, rules.whole_heads)
            kept = select(scores, budget, reduction, rules).kept
        else:
            kept = _largest(scores, _wanted(model.arch, channels), demands)
        set_kept_(attach_compactors(model), kept)
        arch, tensors = fold(model)
        if moments:
            compensate_all_(tensors, model, moments, kept)
        if step < steps:
            model = _rebuilt(model, arch, tensors)
    return arch, tensors


def _scores(
    model: ViT,
    criterion: str | Callable[[ViT], list[Kinds]],
    seed: int,
    calibration: Calibration | None,
    moments: list | None,
) -> list[Kinds]:
    if callable(criterion):
        return criterion(model)
    check_choice('channels.criterion', criterion, CRITERIA)
    if criterion == 'magnitude':
        return magnitudes(model)
    if criterion == 'random':
        return random_scores(model, seed)
    if calibration is None:
        raise ConfigError(
            f'channels.criterion={criterion!r} looks at what channels do on '
            "images: give them as calibration='images/'"
        )
    return calibration.scores(model, moments, criterion)


def _rebuilt(model: ViT, arch, tensors: dict[str, Tensor]) -> ViT:
    """The net that is left, to be pruned further."""
    soft = any(spec.untrained for spec in arch.reductions)
    smaller = ViT(arch, final_norm=model.norm is not None, training=soft)
    load_strict(smaller, tensors, 'the model of the step before')
    return smaller.to(model.patch_embed.proj.weight).train(model.training)


def _known(channels: Mapping) -> dict:
    known = ('target', 'img_size', *(f.name for f in fields(SelectionRules)))
    for key in channels:
        if key not in known:
            raise ConfigError(
                f'channels has no key {key!r} beside target; known keys are '
                f'{", ".join(known)}'
            )
    return dict(channels)


def _to_reach(
    arch,
    num_classes: int,
    before: MacBudget | None,
    done: float,
    target: float,
    img_size: int | tuple[int, int] | None = None,
    **rules,
) -> tuple[SelectionRules, MacBudget, float]:
    """Rules, budget, and the reduction of one step towards a target.

    ``before`` is the budget of the first step, ``done`` the part of the way
    that lies behind after this one.
    """
    check_target(target)
    budget = MacBudget.of(arch, img_size, num_classes)
    rules = SelectionRules(**{'divisor': 8, **rules})
    if before is not None:
        # fractions are of the dense model that all began with
        budget = replace(budget, dense=before.dense)
        start = before.reduction()
        return rules, budget, start + done * (target - start)
    start = budget.reduction()
    if start >= target:
        raise ConfigError(
            f'tokens alone save {start:.2%} of the MACs, so that no channels '
            f'need to go for a target of {target:.2%}; raise the target, '
            'which counts all that is saved, or leave channels out'
        )
    return rules, budget, start + done * (target - start)


def _wanted(arch, channels: Mapping) -> list[tuple]:
    """(Q/K, V, MLP) widths of each block."""
    if set(channels) <= {*_KEEP, 'divisor'} and set(channels) & {*_KEEP}:
        return _fractions(arch, **channels)
    if channels and set(channels) <= {*_DIMS}:
        return _widths(arch, channels)
    raise ConfigError(
        'channels must have a target, or fractions to keep '
        f'({", ".join(_KEEP)}), or widths ({", ".join(_DIMS)}), but got '
        f'{dict(channels)}'
    )


def _fractions(arch, divisor: int = 8, **keep: float) -> list[tuple]:
    """(Q/K, V, MLP) widths of each block, from fractions of them."""
    widths, demands = [], Constraints.of(arch)
    for name, kind in zip(_DIMS, _KEEP):
        share = keep.get(kind, 1.0)
        if not 0 < share <= 1:
            raise ConfigError(
                f'channels.{kind} must be the fraction to keep, in (0, 1], '
                f'but got {share}'
            )
        if share < 1:
            _refuse_whole(kind, demands)
        unit = demands.unit if kind == 'qk' else 1
        rules = SelectionRules(divisor=lcm(divisor, unit))
        widths.append(
            [
                rules.floor(width, max(1, round(share * width)))
                for width in getattr(arch, name)
            ]
        )
    return list(zip(*widths))


def _widths(arch, channels: Mapping) -> list[tuple]:
    widths, demands = [], Constraints.of(arch)
    for name, kind in zip(_DIMS, _KEEP):
        own = getattr(arch, name)
        wanted = channels.get(name, own)
        wanted = per_block(f'channels.{name}', wanted, len(own))
        for block, (new, old) in enumerate(zip(wanted, own), 1):
            if new > old:
                raise ConfigError(
                    f'channels.{name} must not exceed the {old} channels of '
                    f'block {block}, but got {new}'
                )
            if new < old:
                _refuse_whole(kind, demands)
            if kind == 'qk' and new % demands.unit:
                raise ConfigError(
                    f'channels.{name} must be even, since rotary positions '
                    f'turn channels of Q and K in pairs, but got {new}'
                )
        widths.append(wanted)
    return list(zip(*widths))


def _refuse_whole(kind: str, demands: Constraints) -> None:
    if kind in demands.whole:
        raise ConfigError(
            f'channels of {kind!r} cannot be removed from this arch, since a '
            'norm within its blocks sees all of them: leave them whole'
        )


def _largest(
    scores: Sequence[Kinds],
    widths: Sequence[tuple[int, int, int]],
    demands: Constraints,
) -> list[Kinds]:
    """Masks that keep so many channels of each head, the highest-scored."""
    kept = []
    for block, (qk, v, mlp) in zip(map(demands.joined, scores), widths):
        units, both = qk // demands.unit, (block.q + block.k) / 2
        block = block._replace(q=both, k=both)
        parts = zip(block, (units, units, v, mlp))
        masks = Kinds(*(_top(score, width) for score, width in parts))
        kept.append(demands.spread(masks))
    return kept


def _top(score: ndarray, width: int) -> ndarray:
    order = np.argsort(-score, axis=1, kind='stable')
    kept = np.zeros(score.shape, dtype=bool)
    np.put_along_axis(kept, order[:, :width], True, axis=1)
    return kept
