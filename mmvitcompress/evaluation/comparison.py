"""Several methods on one task: the same schedule, the same seeds, one table.

A cell is one config with one seed: it is trained, exported and tested by the
tools, each step once. Differences to the baseline are taken seed by seed,
since most of what a seed changes is the same for all methods.
"""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from mmvitcompress.engine.config import read_config
from mmvitcompress.errors import ConfigError, RunError
from mmvitcompress.utils.checks import is_number
from mmvitcompress.utils.files import write_json

QUALITIES = {
    'top1': 'top-1 accuracy (%)',
    'mIoU': 'mIoU (%)',
    'mFscore': 'mF1 (%)',
    'aAcc': 'pixel accuracy (%)',
    'coco/segm_mAP': 'mask AP',
    'coco/bbox_mAP': 'box AP',
}
"""What a task is measured by, the first that is there."""


@dataclass(frozen=True)
class Cell:
    """One config with one seed.

    Attributes:
        config: Path of the config.
        seed: Of the run.
        root: Work dir of the comparison.
        options: Overrides of the config, ``key=value``.
    """

    config: str
    seed: int
    root: Path
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the config is called."""
        return Path(self.config).stem

    @property
    def folder(self) -> Path:
        """Where everything of this cell lies."""
        return self.root / self.name / f'seed{self.seed}'

    @property
    def exported(self) -> Path:
        """The compressed model that the cell ends in."""
        return self.folder / 'exported.pth'

    def settings(self) -> str:
        """Every setting of the run, as a digest."""
        text = read_config(self.config).pretty_text
        text = '\n'.join([text, *self.overrides()])
        return hashlib.sha256(text.encode()).hexdigest()

    def overrides(self) -> list[str]:
        """Overrides with the seed."""
        return [*self.options, f'randomness.seed={self.seed}']

    def run(self, tools: Path, say: Callable[[str], None]) -> dict:
        """Train, export and test; what was done before isn't done again.

        Args:
            tools: Folder of train.py, export_pruned.py and test.py.
            say: Told of each step as it begins.

        Returns:
            ``metrics`` of the test, and what the export says of ``macs``,
            ``params`` and ``reduction``.

        Raises:
            ConfigError: If the folder is of a run with other settings.
            RunError: If a step fails.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._claim()
        options = ['--cfg-options', *self.overrides()]
        work = self.folder / 'train'
        files = {
            step: self.folder / f'{step}.json' for step in ('export', 'test')
        }
        trained = self.folder / 'trained'
        if not trained.exists():
            say('training')
            run = [self.config, '--work-dir', str(work), '--resume', 'auto']
            self._step(tools, 'train', [*run, *options])
            last = (work / 'last_checkpoint').read_text().strip()
            trained.write_text(last)
        if not files['export'].exists():
            say('exporting')
            run = [self.config, trained.read_text(), str(self.exported)]
            out = ['--json', str(files['export'])]
            self._step(tools, 'export_pruned', [*run, *out, *options])
        if not files['test'].exists():
            say('testing')
            run = [self.config, str(self.exported), '--work-dir', str(work)]
            out = ['--json', str(files['test'])]
            self._step(tools, 'test', [*run, *out, *options])
        report, metrics = (_read(file) for file in files.values())
        costs = {key: report[key] for key in ('macs', 'params', 'reduction')}
        return dict(metrics=metrics, **costs)

    def _claim(self) -> None:
        """See that what lies in the folder is of a run like this."""
        file, digest = self.folder / 'settings.json', self.settings()
        if file.exists() and _read(file)['sha256'] != digest:
            raise ConfigError(
                f'{self.folder} holds a run of {self.config} with other '
                'settings; remove it or choose another --work-dir'
            )
        write_json(file, dict(config=self.config, sha256=digest))

    def _step(self, tools: Path, tool: str, arguments: list[str]) -> None:
        log = self.folder / f'{tool}.log'
        command = [sys.executable, str(tools / f'{tool}.py'), *arguments]
        with log.open('w') as file:
            done = subprocess.run(command, stdout=file, stderr=file)
        if done.returncode:
            errors = re.findall(
                r'^.*[Ee]rror: .*$', log.read_text(), re.MULTILINE
            )
            why = f': {errors[-1]}' if errors else ''
            raise RunError(
                f'{tool}.py of {self.name}, seed {self.seed}, ended with '
                f'status {done.returncode}{why}; {log} says more'
            )


def _read(path: Path) -> dict:
    return json.loads(path.read_text())


def metric_of(results: Sequence[dict], metric: str | None = None) -> str:
    """The metric by which all results are compared.

    Raises:
        ConfigError: If a result lacks it.
    """
    known = [r['metrics'] for r in results]
    names = [metric] if metric else list(QUALITIES)
    for name in names:
        if all(name in metrics for metrics in known):
            return name
    found = sorted(
        key
        for key, value in known[0].items()
        if is_number(value) and all(key in metrics for metrics in known)
    )
    raise ConfigError(
        f'the results hold none of the metrics {", ".join(names)}; choose '
        f'one of {", ".join(found)}'
    )


def summary(
    results: dict[str, dict[int, dict]], baseline: str, metric: str
) -> list[dict]:
    """One row per method, the baseline first.

    Args:
        results: What :meth:`Cell.run` returned, by method and seed.
        baseline: Method that the others are compared with.
        metric: Its name in ``metrics``.

    Returns:
        Dicts of ``name``, ``values`` by seed, ``mean``, ``spread`` (sample
        standard deviation, None for one seed), ``differences`` to the
        baseline by seed with their ``difference`` in the mean and
        ``difference_spread``, ``macs`` and ``params`` of the backbone and
        its ``reduction``.
    """
    rows = []
    reference = results[baseline]
    for name in sorted(results, key=lambda name: name != baseline):
        runs = results[name]
        values = {seed: run['metrics'][metric] for seed, run in runs.items()}
        differences = {
            seed: value - reference[seed]['metrics'][metric]
            for seed, value in values.items()
            if seed in reference
        }
        rows.append(
            dict(
                name=name,
                values=values,
                mean=fmean(values.values()),
                spread=_spread(values),
                differences=differences,
                difference=fmean(differences.values()),
                difference_spread=_spread(differences),
                macs=fmean(r['macs']['after'] for r in runs.values()),
                params=fmean(r['params']['after'] for r in runs.values()),
                reduction=fmean(r['reduction'] for r in runs.values()),
            )
        )
    return rows


def _spread(values: dict[int, float]) -> float | None:
    return stdev(values.values()) if len(values) > 1 else None


def comparison_table(rows: Sequence[dict], metric: str) -> str:
    """The summary as text; times where they were taken."""
    width = max(len(row['name']) for row in rows)
    timed = all('overall_ms' in row for row in rows)
    head = f'{"":{width}} {metric:>14} {"difference":>14} {"MACs":>9} {"":>7}'
    parts = ('backbone', 'encoder', 'overall') if timed else ()
    lines = [head + ''.join(f'{part:>10}' for part in parts)]
    for row in rows:
        cells = [
            f'{row["name"]:{width}}',
            f'{_value(row["mean"], row["spread"]):>14}',
            f'{_value(row["difference"], row["difference_spread"], "+"):>14}',
            f'{row["macs"] / 1e9:>7.3f} G',
            f'{-row["reduction"]:>+7.1%}',
        ]
        line = ' '.join(cells)
        for part in parts:
            line += f'{rows[0][f"{part}_ms"] / row[f"{part}_ms"]:>9.2f}x'
        lines.append(line)
    return '\n'.join(lines)


def _value(mean: float, spread: float | None, sign: str = '') -> str:
    text = f'{mean:{sign}.2f}'
    return text if spread is None else f'{text} ± {spread:.2f}'
