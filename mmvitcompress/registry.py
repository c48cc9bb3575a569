"""Registries of mmvitcompress (scope ``mmvitcompress``).

Each one is a child of MMEngine's root registry, so that a config of any
OpenMMLab library finds our types as ``mmvitcompress.X`` without
``custom_imports``: MMEngine imports this very module by its name. Every type
is registered in the root as well, where plain ``X`` is found by all child
registries once ``mmvitcompress`` has been imported.

Types that need mmseg or matplotlib at hand are imported when a config first
names them.
"""

from importlib import import_module

from mmvitcompress import compat
from mmvitcompress.errors import DependencyError
from mmvitcompress.utils.annotations import check_values, checked

compat.install()  # before anything of OpenMMLab is imported

from mmengine import registry as root  # noqa: E402
from mmengine.registry import Registry  # noqa: E402


class SharedRegistry(Registry):
    """A child registry whose types are known to its parent as well.

    Types check what they are given against their annotations
    (:func:`~mmvitcompress.utils.annotations.checked`).

    Args:
        *args: As MMEngine's.
        lazy: Types that are registered by modules of ``mmvitcompress`` which
            only these types need, and which are imported no sooner.
        **kwargs: As MMEngine's.
    """

    def __init__(self, *args, lazy: dict[str, str] | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.lazy = lazy or {}

    def get(self, key: str) -> type | None:
        """The type of a name, or None.

        Raises:
            DependencyError: If the type needs a package that is missing.
        """
        name = key.removeprefix(f'{self.scope}.')
        if name in self.lazy:
            try:
                import_module(f'mmvitcompress.{self.lazy[name]}')
            except ModuleNotFoundError as error:
                raise DependencyError(
                    f'{name} needs the package {error.name!r}: install what '
                    'requirements/openmmlab.txt lists'
                ) from error
        return super().get(key)

    def _register_module(self, module, module_name=None, force=False):
        if isinstance(module, type):
            module.__init__ = checked(module)
        super()._register_module(module, module_name, force)
        self.parent._register_module(module, module_name, force)


def _child(
    parent: Registry, *locations: str, lazy: dict[str, str] | None = None
) -> SharedRegistry:
    return SharedRegistry(
        parent.name,
        parent=parent,
        scope='mmvitcompress',
        locations=[f'mmvitcompress.{name}' for name in locations],
        lazy=lazy,
    )


MODELS = _child(
    root.MODELS,
    'models.backbones',
    'models.heads',
    'models.losses',
    'models.necks',
    lazy=dict(
        CascadeDecodeHead='models.heads.cascade_head',
        FastConv2d='models.fast.conv',
        FastFPNHead='models.fast.fpn_head',
        FastMSDeformAttnPixelDecoder='models.fast.deformable_attention',
        FastUPerHead='models.fast.uper_head',
        LinearHead='models.heads.linear_head',
        UnmergeFPN='models.necks.fpn',
        MultiScalePreProcessor='models.heads.multi_scale',
        WindowMask2FormerHead='models.heads.window_mask2former',
    ),
)
DATASETS = _child(root.DATASETS, 'datasets')
DATA_SAMPLERS = _child(root.DATA_SAMPLERS, 'datasets')
TRANSFORMS = _child(root.TRANSFORMS, 'datasets')
METRICS = _child(root.METRICS, 'evaluation')
HOOKS = _child(
    root.HOOKS,
    'engine.hooks',
    lazy=dict(CompressionVisualizationHook='visualization.hooks'),
)
OPTIM_WRAPPERS = _child(root.OPTIM_WRAPPERS, 'engine.wrappers')
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    root.OPTIM_WRAPPER_CONSTRUCTORS, 'engine.optimizers'
)

_OF_KEYS = dict(
    model=(MODELS,),
    dataloader=(DATASETS, DATA_SAMPLERS, TRANSFORMS),
    evaluator=(METRICS,),
    hooks=(HOOKS,),
    optim_wrapper=(OPTIM_WRAPPER_CONSTRUCTORS,),
)
"""What ends of a config's keys name types of."""


def check_config(cfg: dict) -> None:
    """Check what types of ours are given in a config, before any is built.

    Raises:
        ConfigError: If a value isn't what the type's annotation says; it is
            named by its place in the config.
    """
    for key, value in cfg.items():
        for end, registries in _OF_KEYS.items():
            if key.endswith(end):
                _check_node(value, key, registries)


def _check_node(node, place: str, registries: tuple[SharedRegistry, ...]):
    if isinstance(node, (list, tuple)):
        for index, part in enumerate(node):
            _check_node(part, f'{place}.{index}', registries)
    if not isinstance(node, dict):
        return
    name = str(node.get('type')).removeprefix('mmvitcompress.')
    for registry in registries if '.' not in name else ():
        found = registry.get(f'mmvitcompress.{name}')
        if found is not None:
            check_values(found, node, place)
    for key, value in node.items():
        _check_node(value, f'{place}.{key}', registries)
