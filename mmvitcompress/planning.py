"""From a MAC target to a plan: where tokens merge, what channels must save."""

from collections.abc import Callable
from dataclasses import dataclass

from mmvitcompress.arch.base import Arch, dense
from mmvitcompress.channels.budget import MacBudget
from mmvitcompress.channels.selection import SelectionRules
from mmvitcompress.errors import ConfigError
from mmvitcompress.tokens import METHODS, TokenMerging, TokenSpec
from mmvitcompress.utils.checks import check_choice, check_target


@dataclass(frozen=True)
class Plan:
    """How to reach a reduction at one image size.

    Attributes:
        spec: What reduces tokens.
        reduction: What tokens and channels save together, as a fraction of
            the dense model's MACs.
        macs: MACs that are left.
        channel_reduction: The channels' part of ``reduction``.
        token_reduction: The token method's part of it.
        dense_macs: MACs of the dense model.
    """

    spec: TokenSpec
    reduction: float
    macs: int
    channel_reduction: float
    token_reduction: float
    dense_macs: int

    @property
    def layers(self) -> tuple[int, ...]:
        """Blocks at which tokens are reduced, from 1; for a Swin within
        stage 3."""
        return self.spec.layers

    def arguments(self) -> dict:
        """The plan as arguments of :func:`mmvitcompress.compress`.

        Channels are chosen at the model's ``img_size``: pass the plan's too.
        """
        arguments = self.config()
        channels = dict(target=self.reduction)
        return arguments | dict(
            channels=channels if self.channel_reduction else None
        )

    def config(self) -> dict:
        """The token method as a backbone's argument; {} if none is needed."""
        if self.spec.is_empty():
            return {}
        return {self.spec.key: self.spec.to_dict()}

    def to_dict(self) -> dict:
        """Builtin types only."""
        figures = {k: v for k, v in vars(self).items() if k != 'spec'}
        return figures | {self.spec.key: self.spec.to_dict()}


def plan_arch(
    arch: Arch,
    target: float,
    img_size: int | tuple[int, int],
    channels: float = 0.0,
    num_classes: int = 0,
    rules: SelectionRules = SelectionRules(),  # noqa: B008, it is frozen
    method: str = TokenMerging.key,
    error_of: Callable[[TokenSpec], float] | None = None,
) -> Plan:
    """Plan for a target at the image size of deployment.

    With tokens alone the method meets the target as nearly as it can; merges
    of neighbours are placed by the rule of
    :mod:`mmvitcompress.tokens.placement`. When channels share the work,
    tokens come as near to their share as they can without passing the target
    (merges stand evenly, CAIT IV-C1), and channels make up the difference.

    Args:
        arch: Arch to compress; token methods that it has are left out.
        target: Reduction to reach, as a fraction of the dense MACs.
        img_size: Image size (H, W), in pixels.
        channels: The channels' share of the reduction, in [0, 1]. Defaults to
            0.
        num_classes: Outputs of the classifier, if it is to be counted.
            Defaults to 0.
        rules: Floors of the widths. Defaults to those of the selection.
        method: Key of the token method, see
            :data:`~mmvitcompress.tokens.METHODS`. Defaults to merging
            neighbours.
        error_of: The error that a token method makes on images, by which it
            is planned. Defaults to none: by MACs alone.

    Raises:
        ConfigError: If an argument is out of range, or the target out of
            reach; says what is reachable.
    """
    check_target(target)
    check_choice('method', method, tuple(METHODS))
    if not 0 <= channels <= 1:
        raise ConfigError(
            "channels must be the channels' share of the reduction, in 0..1, "
            f'but got {channels}'
        )
    arch = dense(arch)
    whole = arch.macs(img_size, num_classes)

    def saved(spec: TokenSpec) -> float:
        reduced = arch.with_reductions(spec)
        return 1 - reduced.macs(img_size, num_classes) / whole

    share = (1 - channels) * target if channels else target
    if error_of is None:
        most = target if channels else 1.0
        spec = METHODS[method].for_target(arch, img_size, saved, share, most)
    else:
        spec = METHODS[method].for_images(
            arch, img_size, saved, share, error_of
        )
    reduction = by_tokens = saved(spec)
    if channels:
        budget = MacBudget.of(
            arch.with_reductions(spec), img_size, num_classes
        )
        budget.check(target, budget.floors(rules))
        reduction = target
    return Plan(
        spec=spec,
        reduction=reduction,
        macs=round((1 - reduction) * whole),
        channel_reduction=reduction - by_tokens,
        token_reduction=by_tokens,
        dense_macs=whole,
    )
