"""What registered types are given by configs, and can't be."""

import inspect

import pytest
import registered
from malformed import WHOLE, accepted, cases, in_turn, odd, told

from mmvitcompress.registry import HOOKS, check_config

pytestmark = pytest.mark.slow

TYPES = {name: kind for kind, name in registered.types()}
FOREIGN = 0.15  # share of the arguments that other libraries take


@pytest.mark.parametrize('name', sorted({*TYPES} - {*registered.UNBUILT}))
def test_every_type_has_a_good_config(name, tmp_path):
    config = registered.base(name, TYPES[name].get(name), tmp_path)
    config = dict(config, type=f'mmvitcompress.{name}')
    if WHOLE or TYPES[name] is not HOOKS:  # with which a model trains
        registered.use(TYPES[name], config, tmp_path)


@cases('arguments')
def test_arguments_are_right_or_refused(rng, tmp_path, capsys):
    name = in_turn(rng, TYPES)
    kind, cls = TYPES[name], TYPES[name].get(name)
    config = registered.base(name, cls, tmp_path)
    known, ours = registered.arguments(cls)
    names = ours if ours and rng.random() > FOREIGN else known
    names = sorted({*names, *config} - {'init_cfg', 'type'}) or ['unknown']
    key = rng.choice([*names, *names, 'no_such_argument'])
    default = known.get(key)
    default = None if default is inspect.Parameter.empty else default
    value = odd(rng, config.get(key, default))
    # where a value is missing, or leads elsewhere, the place is named
    words = told(value) if key in known else [key]
    words += [str(tmp_path), *[key] * (value is None)]
    words += ['needs the package'] * (name in registered.UNBUILT)
    if rng.random() < 0.03 and key in config:
        del config[key]
        words += [key]
    else:
        config = config | {key: value}
    config = dict(config, type=f'mmvitcompress.{name}')

    def main():
        check_config(dict(model=config))
        if key in ours:
            registered.use(kind, config, tmp_path)
        else:  # what its use comes to is theirs to say
            registered.build(kind, config)

    accepted(main, words, capsys)
