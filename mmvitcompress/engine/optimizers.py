"""One optimizer constructor for everything that is trained here."""

import inspect
from collections.abc import Callable, Iterable, Iterator

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from mmvitcompress.channels import Kinds, is_compactor
from mmvitcompress.channels.compactors import each_kind
from mmvitcompress.engine.wrappers import unwrapped
from mmvitcompress.errors import ConfigError
from mmvitcompress.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmvitcompress.tokens import METHODS

# tables and tokens: neither norms nor biases, but just as little to decay
UNDECAYED = (
    'cls_token',
    'dist_token',
    'reg_token',
    'mask_token',
    'pos_embed',
    'absolute_pos_embed',
    'relative_position_bias_table',
    'gamma',
)

PREDICTORS = {key for key, spec in METHODS.items() if spec.untrained}


def is_predictor(name: str) -> bool:
    """Whether a parameter of this name decides which tokens stay."""
    return not PREDICTORS.isdisjoint(name.split('.'))


# what may be given values of its own, and how it is told by its name
_PARTS: dict[str, Callable[[str], bool]] = {
    'compactors': is_compactor,
    'predictor': is_predictor,
}
COMPACTORS = dict(betas=(0.99, 0.999), weight_decay=0.0)
"""What CDCP trains compactors with (CAIT III-C)."""


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class ViTOptimWrapperConstructor:
    """Gives every parameter of a (compressed) ViT the values it wants.

    Norms, biases, position embeddings and tokens aren't decayed. Compactors
    get CDCP's moments and no weight decay. Parameters with equal values share
    a group, so that an optimizer steps through few.

    Args:
        optim_wrapper_cfg: Config of the wrapper with its ``optimizer``.
        paramwise_cfg: All optional:

            - ``layer_decay``: Factor of the learning rate from one block to
              the one before; the head and the final norm have 1. Needs a
              backbone with ``get_layer_depth``. Defaults to 1.
            - ``compactors``, ``predictor``: Options of the optimizer for these
              parts, such as ``dict(lr=1e-2)``.
            - ``custom_keys``: ``{part of a name: dict(lr_mult=…,
              decay_mult=…)}``, as MMEngine's; the longest that fits counts.

    Raises:
        ConfigError: If an option is unknown, or doesn't fit the optimizer.
    """

    def __init__(
        self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None
    ):
        self.optim_wrapper_cfg = dict(optim_wrapper_cfg)
        self.options = dict(paramwise_cfg or {})
        self.layer_decay = self.options.pop('layer_decay', 1.0)
        self.custom_keys = self.options.pop('custom_keys', {})
        unknown = set(self.options) - set(_PARTS)
        if unknown:
            raise ConfigError(
                'paramwise_cfg of ViTOptimWrapperConstructor may hold '
                f'layer_decay, custom_keys, {", ".join(_PARTS)}, but got '
                f'{", ".join(sorted(unknown))}'
            )
        if not 0 < self.layer_decay <= 1:
            raise ConfigError(
                'paramwise_cfg.layer_decay must lie in (0, 1], but got '
                f'{self.layer_decay}'
            )

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer wrapper for a model."""
        model = unwrapped(model)
        wrapper = dict(self.optim_wrapper_cfg)
        optimizer = dict(wrapper.pop('optimizer'))
        groups = self.groups(model, optimizer)
        optimizer['params'] = groups
        self._check(optimizer, groups)
        wrapper.setdefault('type', 'OptimWrapper')
        return OPTIM_WRAPPERS.build(
            wrapper,
            default_args=dict(optimizer=OPTIMIZERS.build(optimizer)),
        )

    def groups(self, model: nn.Module, optimizer: dict) -> list[dict]:
        """Parameter groups, in the order of their first parameters.

        Args:
            model: Not wrapped.
            optimizer: Config with ``lr`` and maybe ``weight_decay``.
        """
        groups: dict[tuple, dict] = {}
        for name, param in model.named_parameters():
            if not param.requires_grad:
                continue
            values = self._values(model, name, param, optimizer)
            key = tuple(sorted(values.items()))
            groups.setdefault(key, {**values, 'params': []})
            groups[key]['params'].append(param)
        return list(groups.values())

    def _values(self, model, name, param, optimizer) -> dict:
        values = dict(
            lr=optimizer['lr'],
            weight_decay=optimizer.get('weight_decay', 0.0),
        )
        if param.ndim <= 1 or name.rpartition('.')[2] in UNDECAYED:
            values['weight_decay'] = 0.0
        values['lr'] *= self._layer_scale(model, name)
        for key in sorted(self.custom_keys, key=len, reverse=True):
            if key in name:
                values['lr'] *= self.custom_keys[key].get('lr_mult', 1.0)
                values['weight_decay'] *= self.custom_keys[key].get(
                    'decay_mult', 1.0
                )
                break
        for part, belongs in _PARTS.items():
            if belongs(name):
                values.update(COMPACTORS if part == 'compactors' else {})
                values.update(self.options.get(part, {}))
        return {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in values.items()
        }

    def _layer_scale(self, model: nn.Module, name: str) -> float:
        if self.layer_decay == 1:
            return 1.0
        backbone = getattr(model, 'backbone', None)
        if not hasattr(backbone, 'get_layer_depth'):
            raise ConfigError(
                'paramwise_cfg.layer_decay needs a backbone that knows its '
                f'layers (get_layer_depth), but got {type(backbone).__name__}'
            )
        layer, layers = backbone.get_layer_depth(name, 'backbone.')
        return self.layer_decay ** (layers - 1 - layer)

    @staticmethod
    def _check(optimizer: dict, groups: list[dict]) -> None:
        kind = OPTIMIZERS.get(optimizer['type'])
        if not (
            inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer)
        ):
            return
        known = inspect.signature(kind).parameters
        for option in _options(groups):
            if option not in known:
                raise ConfigError(
                    f'optimizer {optimizer["type"]} has no {option!r}, which '
                    'compactors or the predictor ask for; AdamW has'
                )


def _options(groups: list[dict]) -> Iterator[str]:
    for group in groups:
        yield from (key for key in group if key != 'params')


def compactor_groups(
    wrapper: OptimWrapper, compactors: Iterable[Kinds]
) -> list[dict]:
    """The parameter groups that hold compactors, seen to be as CDCP wants.

    Args:
        wrapper: Of the optimizer that trains them.
        compactors: As :func:`~mmvitcompress.channels.find_compactors` returns
            them.

    Raises:
        ConfigError: If the optimizer lacks some or decays them, or would take
            CDCP's penalty for a part of a scaled gradient.
    """
    ours = {id(compactor.weight) for compactor in each_kind(compactors)}
    groups = [
        group
        for group in wrapper.optimizer.param_groups
        if any(id(param) in ours for param in group['params'])
    ]
    held = sum(
        id(param) in ours for group in groups for param in group['params']
    )
    use = (
        "set optim_wrapper.constructor='mmvitcompress."
        "ViTOptimWrapperConstructor'"
    )
    if held != len(ours):
        raise ConfigError(
            f'the optimizer has {held} of {len(ours)} compactors: {use}'
        )
    for group in groups:
        if group.get('weight_decay'):
            raise ConfigError(
                'compactors must not be decayed, but weight_decay is '
                f'{group["weight_decay"]}: {use}'
            )
    if hasattr(wrapper, 'loss_scaler') and any(
        group.get('fused') for group in groups
    ):
        raise ConfigError(
            'a fused optimizer gets gradients in the loss scale, to which '
            "CDCP's penalty does not belong: set optimizer.fused=False"
        )
    return groups
