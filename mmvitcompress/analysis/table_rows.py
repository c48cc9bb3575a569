"""A table of methods as one config: a baseline, and what rows change in it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config

from mmvitcompress.analysis.candidates import with_method
from mmvitcompress.engine.config import read_config
from mmvitcompress.errors import ConfigError


def write_rows(
    path: str, folder: Path, chosen: Sequence[str] | None = None
) -> list[Path]:
    """Write the configs of a table's rows, the baseline's first.

    Args:
        path: Config with ``baseline``, a config's path from there; ``rows``,
            what each named row changes in it; and, if wanted, ``common``,
            what all rows change, the baseline's too. A row with ``method``,
            a key of :data:`~mmvitcompress.tokens.METHODS`, gets the arguments
            with which that saves ``target``, of the row or the table, as a
            fraction of the MACs; what it says of the method itself goes
            before them.
        folder: Where the configs go, each called as its row.
        chosen: Names of the rows to write. Defaults to all.

    Returns:
        Their paths.

    Raises:
        ConfigError: If the table or a row of it is wrong, or its target out
            of reach.
    """
    table = Config.fromfile(path)
    rows = table.get('rows')
    if not isinstance(rows, Mapping) or 'baseline' not in table:
        raise ConfigError(
            f'{path} must be a table, with a baseline and rows, but has '
            f'{", ".join(table.keys()) or "nothing"}'
        )
    lacking = sorted(set(chosen or ()) - set(rows))
    if lacking:
        raise ConfigError(
            f'{path} has no row {", ".join(lacking)}; choose from '
            f'{", ".join(rows)}'
        )
    if chosen:
        rows = {name: rows[name] for name in chosen}
    baseline = Path(path).parent / table.baseline
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[str, Path] = {}
    for name, row in [(baseline.stem, {}), *rows.items()]:
        if not re.fullmatch(r'\w[\w.+-]*', name) or name in written:
            raise ConfigError(
                f'{path}: a row must have a name of its own of letters, '
                f'digits, _, ., + and -, but got {name!r}'
            )
        file = written[name] = folder / f'{name}.py'
        try:
            config = read_config(str(baseline))
            config.merge_from_dict(_plain(table.get('common', {})))
            _change(config, _plain(row), table.get('target'))
            lines = [f'{k} = {v!r}' for k, v in config.to_dict().items()]
            file.write_text('\n'.join(lines), encoding='utf-8')
            read_config(str(file))
        except (ConfigError, TypeError, KeyError) as error:
            raise ConfigError(f'{path}, row {name}: {error}') from error
    return list(written.values())


def _change(config: Config, row: dict, target: float | None) -> None:
    method = row.pop('method', None)
    target = row.pop('target', target)
    if method is not None:
        if target is None:
            raise ConfigError(f'method={method!r} needs a target')
        planned = with_method(config, method, target, None)
        config.model.backbone = planned.model.backbone
    config.merge_from_dict(row)


def _plain(changes: Mapping) -> dict:
    """Builtin containers, as options are."""
    return Config(dict(changes=changes)).to_dict()['changes']
