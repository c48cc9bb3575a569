"""Figures of small models that are kept, and how they are compared."""

import itertools
import json
from pathlib import Path

from golden_runs import computed, figures, state

FOLDER = Path(__file__).parents[1] / 'golden'

# Kernels add in an order of their own on each machine, and with each number
# of threads; in float64 that moves the outputs by some 1e-14 of their scale,
# and a network of ReLUs, softmaxes and norms makes up to ten times as much
# of it.
TOLERANCE = 1e-12
SINGLE = 1e-5
"""Of what depends on numbers in float32, whose kernels differ as well."""


def measured(case):
    """All that is kept of one case."""
    model = case.build()
    return dict(
        state=state(model),
        **figures(model, case.size),
        outputs=computed(model, case.batch, case.size, case.train),
    )


def read(group):
    """What was kept of a group of cases, by the case's name."""
    path = FOLDER / f'{group}.json'
    content = json.loads(path.read_text()) if path.exists() else {}
    for kept in content.values():
        kept['state'] = unpacked(kept['state'])
    return content


def write(group, content):
    """Keep what was measured; :func:`read` is the partner."""
    for name, kept in content.items():
        tree = packed(kept['state'])
        # names that a tree can't hold would be lost
        assert list(unpacked(tree).items()) == list(kept['state'].items())
        content[name] = kept | dict(state=tree)
    lines = ',\n'.join(
        f' {json.dumps(name)}: {_laid_out(kept)}'
        for name, kept in content.items()
    )
    (FOLDER / f'{group}.json').write_text(f'{{\n{lines}\n}}\n')


def _laid_out(kept):
    """JSON with a line for each output, so that changes can be read."""
    outputs = ',\n'.join(
        f'   {json.dumps(name)}: {json.dumps(row)}'
        for name, row in kept['outputs'].items()
    )
    rest = ',\n'.join(
        f'  {json.dumps(key)}: {json.dumps(part, separators=(",", ":"))}'
        for key, part in kept.items()
        if key != 'outputs'
    )
    return f'{{\n{rest},\n  "outputs": {{\n{outputs}\n  }}\n }}'


def differences(kept, found, single=None):
    """What differs between two measurements, one line for each thing.

    Args:
        kept: The former.
        found: The latter.
        single: See ``golden_cases.Case``.
    """
    lines = _keys('state', kept['state'], found['state'])
    for part in sorted((kept.keys() | found.keys()) - {'state', 'outputs'}):
        before, now = kept.get(part), found.get(part)
        if isinstance(before, dict) and isinstance(now, dict):
            lines += _keys(part, before, now, ordered=False)
        elif before != now:
            lines.append(f'{part}: {before} before, {now} now')
    before, now = kept['outputs'], found['outputs']
    lines += _names('outputs', before, now)
    for name in before:
        if name in now:
            rough = single is not None and name.startswith(single)
            bound = SINGLE if rough else TOLERANCE
            lines += _moved(name, before[name], now[name], bound)
    return lines


def _names(part, before, now):
    lost = [f'{part}: {key} is lost' for key in before if key not in now]
    return lost + [f'{part}: {key} is new' for key in now if key not in before]


def _keys(part, before, now, ordered=True):
    lines = _names(part, before, now)
    for key in before:
        if key in now and before[key] != now[key]:
            lines.append(f'{part}: {key} was {before[key]}, and is {now[key]}')
    if ordered and not lines and list(before) != list(now):
        pairs = itertools.zip_longest(before, now)
        first = next(pair for pair in pairs if pair[0] != pair[1])
        lines.append(f'{part}: another order, from {first[0]} on')
    return lines


def _moved(name, before, now, tolerance):
    shape, *values = before
    if shape != now[0]:
        return [f'outputs: {name} was of shape {shape}, and is {now[0]}']
    mean, deviation = values[:2]
    scale = (mean**2 + deviation**2) ** 0.5
    kinds = ('mean', 'deviation', 'projection', 'first', 'third', 'last')
    return [
        f'outputs: {kind} of {name} was {x!r}, and is {y!r}: '
        f'{abs(x - y) / (scale or 1):.1e} of its scale'
        for kind, x, y in zip(kinds, values, now[1:])
        if not abs(x - y) <= tolerance * scale
    ]


# -- state dicts in short -------------------------------------------------


def packed(shapes):
    """A state dict's shapes as a tree, equal neighbours in one: '0-7'."""
    tree = {}
    for name, shape in shapes.items():
        *path, leaf = name.split('.')
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = shape
    return _folded(tree)


def _folded(node):
    if isinstance(node, str):
        return node
    runs = []
    for key, child in node.items():
        child = _folded(child)
        number = int(key) if key.isdigit() else None
        if (
            runs
            and None not in (number, runs[-1][1])
            and runs[-1][1] + 1 == number
            and json.dumps(runs[-1][2]) == json.dumps(child)
        ):
            runs[-1][1] = number
        else:
            runs.append([key, number, child])
    return {
        first if last is None or int(first) == last else f'{first}-{last}': x
        for first, last, x in runs
    }


def unpacked(tree, prefix=''):
    """The shapes by name of what :func:`packed` returned."""
    if isinstance(tree, str):
        return {prefix[:-1]: tree}
    shapes = {}
    for key, child in tree.items():
        first, _, last = key.partition('-')
        keys = range(int(first), int(last) + 1) if last.isdigit() else [key]
        for name in keys:
            shapes |= unpacked(child, f'{prefix}{name}.')
    return shapes
