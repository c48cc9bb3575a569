"""What tools/test.py changes in a config besides the checkpoint."""

from copy import deepcopy
from pathlib import Path

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from mmvitcompress.errors import ConfigError


def show_predictions(
    cfg: Config,
    show: bool,
    folder: str | None,
    wait_time: float,
    interval: int,
) -> None:
    """Let the visualization hook paint every ``interval``-th prediction.

    They are shown in a window for ``wait_time`` seconds each, saved in
    ``folder``, or both. ConfigError if the config has no such hook.
    """
    hook = cfg.get('default_hooks', {}).get('visualization')
    if not hook:
        raise ConfigError(
            '--show and --show-dir need default_hooks.visualization, which '
            'the config does not have'
        )
    hook.update(draw=True, interval=interval)
    if show:
        hook.update(show=True, wait_time=wait_time)
    if folder:
        folder = str(Path(folder).resolve())
        if 'Det' in hook['type']:
            hook['test_out_dir'] = folder
        else:
            cfg.visualizer.save_dir = folder


def use_test_time_augmentation(cfg: Config) -> None:
    """Average predictions over the views that the config lists; ConfigError if
    it lists none."""
    for name in ('tta_model', 'tta_pipeline'):
        if not cfg.get(name):
            raise ConfigError(f'--tta needs {name}, which the config lacks')
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def keep_class_metrics(runner: Runner) -> dict[str, float]:
    """What mmseg's ``IoUMetric`` only prints of each class.

    Args:
        runner: About to test.

    Returns:
        ``IoU.<class>``, ``Acc.<class>`` and such, in percent; empty until the
        test is done.
    """
    found = {}

    def keep(metric, work):
        def kept(*args, **kwargs):
            by_kind = work(*args, **kwargs)
            for kind, values in by_kind.items():
                if np.ndim(values):  # not of all classes together
                    names = metric.dataset_meta['classes']
                    for name, value in zip(names, values):
                        found[f'{kind}.{name}'] = 100 * float(value)
            return by_kind

        return kept

    for metric in runner.test_evaluator.metrics:
        work = getattr(metric, 'total_area_to_metrics', None)
        if work is not None:
            metric.total_area_to_metrics = keep(metric, work)
    return found


def save_predictions(cfg: Config, path: str) -> None:
    """Have the evaluation save what the model predicts.

    Args:
        cfg: The config.
        path: A folder for label maps if the config is one of mmseg, else a
            ``.pkl`` file.

    Raises:
        ConfigError: If it is the other kind of path, or if no evaluator of
            the config saves label maps.
    """
    evaluators = cfg.test_evaluator
    if not isinstance(evaluators, list | tuple):
        evaluators = [evaluators]
    evaluators = deepcopy(list(evaluators))
    scope = cfg.get('default_scope')
    pickled = path.endswith(('.pkl', '.pickle'))
    if pickled == (scope == 'mmseg'):
        wanted = 'a folder' if pickled else 'a .pkl file'
        raise ConfigError(f'--out must be {wanted}, but got {path!r}')
    if pickled:
        kind = 'mmdet.DumpDetResults' if scope == 'mmdet' else 'DumpResults'
        evaluators.append({'type': kind, 'out_file_path': path})
    else:
        _save_label_maps(evaluators, path)
    cfg.test_evaluator = evaluators


def _save_label_maps(evaluators: list[dict], folder: str) -> None:
    for evaluator in evaluators:
        if evaluator['type'].endswith('IoUMetric'):
            evaluator['output_dir'] = folder
            return
    raise ConfigError(
        '--out needs an IoUMetric among test_evaluator, but got '
        + ', '.join(evaluator['type'] for evaluator in evaluators)
    )
