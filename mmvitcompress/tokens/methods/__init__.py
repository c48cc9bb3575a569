"""Token methods: a file each, found by itself."""

from importlib import import_module
from pkgutil import iter_modules

from mmvitcompress.tokens.spec import TokenSpec
from mmvitcompress.tokens.staged import StagedSpec

for _module in iter_modules(__path__):
    import_module(f'{__name__}.{_module.name}')

METHODS: dict[str, type[TokenSpec]] = {
    spec.key: spec
    for spec in sorted(
        [*TokenSpec.__subclasses__(), *StagedSpec.__subclasses__()],
        key=lambda spec: spec.__module__,
    )
    if spec is not StagedSpec
}
"""Specifications by their keys, in the order in which methods act: that of
their files' names."""
