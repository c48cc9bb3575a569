"""From a MAC target to a plan: where tokens merge, what channels must save."""

from dataclasses import dataclass

from mmvitcompress.arch.base import Arch, dense
from mmvitcompress.channels.budget import MacBudget
from mmvitcompress.channels.selection import SelectionRules
from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens import TokenMerging
from mmvitcompress.tokens.placement import (
    Layers,
    Placement,
    even_layers,
    most_merges,
    place_merges,
)
from mmvitcompress.utils.checks import check_target


@dataclass(frozen=True)
class Plan:
    """How to reach a reduction at one image size.

    Attributes:
        layers: Blocks before whose attention tokens are merged, from 1; for a
            Swin within stage 3.
        directions: Direction of each merge.
        reduction: What tokens and channels save together, as a fraction of
            the dense model's MACs.
        macs: MACs that are left.
        channel_reduction: The channels' part of ``reduction``.
        token_reduction: The merges' part of it.
        dense_macs: MACs of the dense model.
    """

    layers: tuple[int, ...]
    directions: tuple[str, ...]
    reduction: float
    macs: int
    channel_reduction: float
    token_reduction: float
    dense_macs: int

    def arguments(self) -> dict:
        """The plan as arguments of :func:`mmvitcompress.compress`.

        Channels are chosen at the model's ``img_size``: pass the plan's too.
        """
        merging = dict(layers=self.layers, directions=self.directions)
        channels = dict(target=self.reduction)
        return dict(
            token_merging=merging if self.layers else None,
            channels=channels if self.channel_reduction else None,
        )

    def to_dict(self) -> dict:
        """Builtin types only."""
        return {
            **vars(self),
            'layers': list(self.layers),
            'directions': list(self.directions),
        }


def plan(
    arch: Arch,
    target: float,
    img_size: int | tuple[int, int],
    channels: float = 0.0,
    num_classes: int = 0,
    rules: SelectionRules = SelectionRules(),  # noqa: B008, it is frozen
) -> Plan:
    """Plan for a target at the image size of deployment.

    With tokens alone the merges are placed by the rule of
    :mod:`mmvitcompress.tokens.placement`. When channels share the work, the
    merges stand evenly (CAIT IV-C1), as many of them as come nearest to their
    share without passing the target, and the channels make up the difference.

    Args:
        arch: Arch to compress; merging or slimming that it has is left out.
        target: Reduction to reach, as a fraction of the dense MACs.
        img_size: Image size (H, W), in pixels.
        channels: The channels' share of the reduction, in [0, 1]. Defaults to
            0.
        num_classes: Outputs of the classifier, if it is to be counted.
            Defaults to 0.
        rules: Floors of the widths. Defaults to those of the selection.

    Raises:
        ConfigError: If an argument is out of range, or the target out of
            reach; says what is reachable.
    """
    check_target(target)
    if not 0 <= channels <= 1:
        raise ConfigError(
            "channels must be the channels' share of the reduction, in 0..1, "
            f'but got {channels}'
        )
    arch = dense(arch)
    whole = arch.macs(img_size, num_classes)
    grid, depth = arch.mergeable(img_size)
    # along the longer side first, so that both sides come to an end together
    first = 'vertical' if grid[0] > grid[1] else 'horizontal'

    def merged(layers: Layers) -> Arch:
        return arch.replace(token_merging=TokenMerging(layers, first=first))

    def reduction_of(layers: Layers) -> float:
        return 1 - merged(layers).macs(img_size, num_classes) / whole

    most = most_merges(grid, depth)
    if channels:
        share = (1 - channels) * target
        placement = _nearest_even(reduction_of, depth, most, share, target)
    else:
        placement = place_merges(reduction_of, depth, most, target)
    arch = merged(placement.layers)
    left = 0.0
    if channels:
        budget = MacBudget.of(arch, img_size, num_classes)
        budget.check(target, rules.floors(budget.widths))
        left = target - placement.reduction
    reduction = placement.reduction + left
    merging = arch.token_merging
    return Plan(
        layers=placement.layers,
        directions=merging.directions if merging else (),
        reduction=reduction,
        macs=round((1 - reduction) * whole),
        channel_reduction=left,
        token_reduction=placement.reduction,
        dense_macs=whole,
    )


def _nearest_even(
    reduction_of, depth: int, most: int, share: float, target: float
) -> Placement:
    candidates = [Placement((), 0.0)]
    for count in range(1, most + 1):
        layers = even_layers(count, depth)
        candidates.append(Placement(layers, reduction_of(layers)))
    fitting = [c for c in candidates if c.reduction <= target]
    return min(fitting, key=lambda c: abs(c.reduction - share))
