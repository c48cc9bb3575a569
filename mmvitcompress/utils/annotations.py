"""Check arguments against what a function's annotations say."""

import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from mmvitcompress.errors import ConfigError

_WORDS = {
    bool: 'True or False',
    int: 'a whole number',
    float: 'a finite number',
    str: 'a string',
    types.NoneType: 'None',
}

LONGEST = 200
"""Characters of a value that messages show."""


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is what an annotation says, as configs can write it.

    Lists serve as tuples, and whole numbers as floats; truth values are no
    numbers, NaN and infinity no floats. What is inside of dicts isn't looked
    at; what can't be told fits.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in inner)
    if origin is typing.Literal:
        return value in inner
    kind = origin or hint
    if kind is types.NoneType:
        return value is None
    if kind is Any or not isinstance(kind, type):
        return True
    if kind in (int, float):
        wanted = Integral if kind is int else Real
        return (
            isinstance(value, wanted)
            and not isinstance(value, bool)
            and (isinstance(value, Integral) or math.isfinite(value))
        )
    if kind is Callable:
        return callable(value)
    if not issubclass(kind, Iterable) or issubclass(kind, (str, Mapping)):
        return isinstance(value, kind)
    if not issubclass(kind, Sequence | set | frozenset):
        return isinstance(value, kind)
    if isinstance(value, (str, bytes, Mapping)):
        return False
    if not isinstance(value, Iterable) or not hasattr(value, '__len__'):
        return False
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        return len(value) == len(inner) and all(map(fits, value, inner))
    return not inner or all(fits(part, inner[0]) for part in value)


def described(hint: Any) -> str:
    """An annotation in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return ' or '.join(dict.fromkeys(map(described, inner)))
    if origin is typing.Literal:
        return f'one of {", ".join(map(str, inner))}'
    if hint in _WORDS:
        return _WORDS[hint]
    kind = origin or hint
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        return f'({", ".join(map(described, inner))})'
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return 'a dict'
    if isinstance(kind, type) and issubclass(kind, Sequence | set):
        return f'a list of {described(inner[0])}' if inner else 'a list'
    return f'a {getattr(kind, "__name__", kind)}'


@functools.cache
def _hints(function: Callable) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except NameError:  # of a name that only type checkers import
        return {}


@functools.cache
def _arguments(cls: type) -> dict[str, tuple[Any, Any]]:
    """Annotation and default of a class's arguments by name; of those that it
    hands on as ``**kwargs``, what its bases say."""
    found = {}
    for each in cls.__mro__:
        init = vars(each).get('__init__')
        if init in (None, object.__init__):
            continue
        parameters = inspect.signature(init).parameters.values()
        for one in parameters:
            if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL):
                hint = _hints(init).get(one.name, Any)
                found.setdefault(one.name, (hint, one.default))
        if all(one.kind is not one.VAR_KEYWORD for one in parameters):
            break
    return found


def check_values(cls: type, values: Mapping[str, Any], place: str) -> None:
    """Check values of a class's arguments, by their names.

    Args:
        cls: Whose annotations are looked at.
        values: What it is to be given; unknown names are passed over.
        place: What comes before the names in messages.

    Raises:
        ConfigError: If a value isn't what the annotation says.
    """
    known = _arguments(cls)
    for name, value in values.items():
        hint, default = known.get(name, (Any, None))
        if not fits(value, hint) and value is not default:
            got = repr(value)
            got = got if len(got) <= LONGEST else f'{got[:LONGEST]}…'
            raise ConfigError(
                f'{place}.{name} must be {described(hint)}, but got {got}'
            )


def checked(cls: type) -> Callable:
    """A class's ``__init__`` that checks what it is given, and by what name.

    Raises:
        ConfigError: If an argument is unknown, missing, or isn't what its
            annotation says.
    """
    init = _take_nothing if cls.__init__ is object.__init__ else cls.__init__
    signature = inspect.signature(init)

    @functools.wraps(init)
    def __init__(self, *args, **kwargs):
        try:
            given = signature.bind(self, *args, **kwargs).arguments
        except TypeError as error:
            names = ', '.join([*signature.parameters][1:]) or 'none'
            raise ConfigError(
                f'{type(self).__name__}: {error}; its arguments are {names}'
            ) from None
        check_values(cls, {**given, **kwargs}, type(self).__name__)
        init(self, *args, **kwargs)

    return __init__


def _take_nothing(self) -> None:
    """What object's ``__init__`` does, whose signature says otherwise."""
