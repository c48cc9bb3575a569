"""Registries of mmvitcompress (scope ``mmvitcompress``).

Each one is a child of MMEngine's root registry, so that a config of any
OpenMMLab library finds our types as ``mmvitcompress.X`` without
``custom_imports``: MMEngine imports this very module by its name. Every type
is registered in the root as well, where plain ``X`` is found by all child
registries once ``mmvitcompress`` has been imported.
"""

from mmengine import registry as root
from mmengine.registry import Registry


class SharedRegistry(Registry):
    """A child registry whose types are known to its parent as well."""

    def _register_module(self, module, module_name=None, force=False):
        super()._register_module(module, module_name, force)
        self.parent._register_module(module, module_name, force)


def _child(parent: Registry, *locations: str) -> SharedRegistry:
    return SharedRegistry(
        parent.name,
        parent=parent,
        scope='mmvitcompress',
        locations=[f'mmvitcompress.{name}' for name in locations],
    )


MODELS = _child(root.MODELS, 'models')
DATASETS = _child(root.DATASETS, 'datasets')
DATA_SAMPLERS = _child(root.DATA_SAMPLERS, 'datasets')
TRANSFORMS = _child(root.TRANSFORMS, 'datasets')
METRICS = _child(root.METRICS, 'training')
HOOKS = _child(root.HOOKS, 'training')
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    root.OPTIM_WRAPPER_CONSTRUCTORS, 'training'
)
