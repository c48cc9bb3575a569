"""``tools/export.py``, and ``tools/export_onnx.py`` as its ONNX face."""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmvitcompress.analysis.configs import as_shape, load_config
from mmvitcompress.analysis.report import environment, markdown_table
from mmvitcompress.analysis.timing import CLOCKS
from mmvitcompress.deploy.measuring import EAGER, figures, macs_ratio
from mmvitcompress.deploy.network import (
    DYNAMIC,
    PARTS,
    DeployedNetwork,
    GraphSpec,
)
from mmvitcompress.deploy.shipping import (
    Candidate,
    Trial,
    check_batches,
    check_possible,
    circumstances,
    image_shape,
    ship,
)
from mmvitcompress.deploy.targets import TARGETS
from mmvitcompress.deploy.targets.onnx_file import OPSET
from mmvitcompress.engine.build import build
from mmvitcompress.engine.config import add_overrides
from mmvitcompress.errors import ConfigError
from mmvitcompress.utils import cli

COMPRESSED, DENSE = 'model', 'baseline'


def export_parser(description: str, out: str) -> argparse.ArgumentParser:
    """All flags but ``--target``; ``out`` says what files are called."""
    parser = cli.parser(description)
    add = parser.add_argument
    add('config', help='config file of a model')
    add('out', help=out)
    checkpoint_help = (
        'of a training run or of tools/export_pruned.py; without it the '
        'weights that the config names, or random ones'
    )
    add('--checkpoint', metavar='FILE', help=checkpoint_help)
    baseline_help = (
        'model to compare with, written, checked and timed in the same way, '
        'in turns; its files are not kept'
    )
    add('--baseline', metavar='CONFIG', help=baseline_help)
    add('--baseline-checkpoint', metavar='FILE', help='its weights')
    part_help = (
        'what the graph holds: the backbone, with the neck, or all up to '
        'the raw outputs of the head'
    )
    add('--part', choices=PARTS, default='all', help=part_help)
    shape_help = (
        'image height and width in pixels, or one number for both; by '
        'default what the config is about'
    )
    add('--shape', type=int, nargs='+', metavar='N', help=shape_help)
    dynamic_help = (
        'what may vary: the number of images, their size as well (in steps '
        'of patch and merges; slower to write), or nothing'
    )
    add('--dynamic', choices=DYNAMIC, default='batch', help=dynamic_help)
    batch_help = (
        'numbers of images to time; times are those of the first, images/s '
        'the most that any reaches'
    )
    add('--batch-size', type=int, nargs='+', default=[1], help=batch_help)
    opset_help = "version of ONNX's operators"
    add('--opset', type=int, default=OPSET, help=opset_help)
    images_help = (
        "folder of images to compare outputs on, or 'dataset'; random ones "
        'are always compared'
    )
    add('--images', metavar='SOURCE', help=images_help)
    check_help = 'measure accuracy on N images of the validation data'
    add('--check-images', type=int, default=0, metavar='N', help=check_help)
    int8_help = 'also write an INT8 file, quantised statically'
    add('--int8', action='store_true', help=int8_help)
    calibration_help = (
        "folder of images for --int8; 'dataset' takes validation images that "
        'accuracy is not measured with'
    )
    add(
        '--calibration',
        default='dataset',
        metavar='FOLDER',
        help=calibration_help,
    )
    add('--calibration-images', type=int, default=64, metavar='N')
    bf16_help = 'also run in bfloat16, where the runtime can'
    add('--bf16', action='store_true', help=bf16_help)
    memory_help = (
        'measure the peak of memory, of a process that loads and runs a file'
    )
    add('--memory', action='store_true', help=memory_help)
    add('--repeats', type=int, default=20, help='timed runs')
    clock_help = (
        "'cpu' counts processor time, for machines where other work runs"
    )
    add('--clock', choices=CLOCKS, default='wall', help=clock_help)
    add_overrides(parser, 'override parts of the configs, such as data roots')
    cli.add_json(parser)
    return parser


def export_files(args: argparse.Namespace, targets: Sequence[str]) -> None:
    """Do what the command line asks for, and print a table.

    Raises:
        ConfigError: If anything asked for is not possible.
        DependencyError: If a package is missing.
    """
    trial = Trial(
        args.int8,
        args.bf16,
        args.images,
        None if args.calibration == 'dataset' else args.calibration,
        args.calibration_images,
        args.check_images,
        tuple(args.batch_size),
        args.memory,
        args.repeats,
        args.clock,
    )
    check_possible(targets, args.part, trial)
    stem = _stem(args.out, targets)
    if args.baseline_checkpoint and not args.baseline:
        raise ConfigError('--baseline-checkpoint needs --baseline')
    made = _candidate(args, args.config, args.checkpoint, args.backbone)
    shape = made.network.spec.shape
    check_batches(made.network.spec, trial)
    options = dict(opset=args.opset)
    with tempfile.TemporaryDirectory() as folder:
        shipped, errors, ratio = {}, {}, None
        if args.baseline:
            other = _candidate(
                args, args.baseline, args.baseline_checkpoint, shape=shape
            )
            ratio = macs_ratio(made, other)
            errors[DENSE], rows = ship(
                other, Path(folder, DENSE), targets, trial, **options
            )
            shipped[DENSE] = other, rows
        errors[COMPRESSED], rows = ship(made, stem, targets, trial, **options)
        shipped[COMPRESSED] = made, rows
        found = figures(shipped, trial)
    report = dict(
        **circumstances(made.network, trial),
        opset=args.opset,
        macs_ratio=ratio,
        relative_error=errors[COMPRESSED],
        files={row.name: row.path for row in rows},
        runtimes=found[COMPRESSED],
        baseline=found.get(DENSE),
        environment=environment(made.network.example(1).device),
    )
    print(runtime_table(found, ratio))
    print(runtime_notes(report))
    if args.json:
        cli.write_json(args.json, report)


def _candidate(
    args: argparse.Namespace,
    config: str,
    checkpoint: str | None,
    backbone: str | None = None,
    shape: tuple[int, int] | None = None,
) -> Candidate:
    cfg = load_config(config, args.cfg_options, backbone)
    model = build(cfg, checkpoint, 'measure')
    shape = shape or as_shape(args.shape or image_shape(cfg, model))
    spec = GraphSpec(shape, args.dynamic, args.batch_size[0])
    return Candidate(cfg, model, DeployedNetwork(model, args.part, spec))


def _stem(out: str, targets: Sequence[str]) -> str:
    """``out`` without the suffix of the one target that there is."""
    suffixes = [TARGETS[name].suffix for name in targets]
    if len(targets) == 1:
        # .onnx does for TensorRT's, too
        for each in (suffixes[0], f'.{suffixes[0].rpartition(".")[2]}'):
            if out.endswith(each) and Path(out).name != each:
                return out[: -len(each)]
    if out.endswith(tuple(target.suffix for target in TARGETS.values())):
        raise ConfigError(
            f'out must end in {" or ".join(suffixes)}, or be a name without '
            f'suffix, but got {out}'
        )
    return out


def runtime_table(
    found: Mapping[str, Mapping[str, Mapping]], ratio: float | None = None
) -> str:
    """Markdown: a line for each model in each runtime.

    Args:
        found: Of :func:`~mmvitcompress.deploy.measuring.figures`.
        ratio: How much less work the model is than the baseline.

    Returns:
        With the gain over the same runtime's baseline, and over float32 in
        PyTorch, the baseline's where there is one.
    """
    dense, lines = found.get(DENSE), []
    for name, rows in found.items():
        for row, own in rows.items():
            pair = dense and name != DENSE and dense.get(row)
            eager = (dense or rows)[EAGER]
            lines.append(_cells(name, row, own, pair or None, eager))
    text = markdown_table(lines, texts=2)
    if ratio is not None:
        text += f'\nIf time followed MACs, the speedup would be {ratio:.2f}×.'
    return text


def _cells(
    name: str,
    row: str,
    own: Mapping,
    pair: Mapping | None,
    eager: Mapping,
) -> dict[str, str]:
    cells = {'model': name, 'runtime': row}
    if 'ms' in own:
        ms = own['ms']['median']
        cells['ms'] = f'{ms:.1f}'
        cells['against PyTorch'] = f'{eager["ms"]["median"] / ms:.2f}×'
        if pair is not None:
            cells['gain'] = f'{pair["ms"]["median"] / ms:.2f}×'
        cells['images/s'] = f'{own["images_per_s"]:.2f}'
    if 'mb' in own:
        cells['file (MB)'] = f'{own["mb"]:.1f}'
    if own.get('peak_mb') is not None:
        cells['peak (MiB)'] = f'{own["peak_mb"]:.0f}'
    for metric, value in own.get('metrics', {}).items():
        cells[metric] = f'{value:.2f}'
    if 'agreement' in own:
        cells['same class'] = f'{own["agreement"]:.2%}'
    return cells


def runtime_notes(report: Mapping) -> str:
    """What one must know to read the table."""
    place, errors = report['environment'], report['relative_error']
    said = [
        f'{place["device_name"]}, {place["threads"]} CPU threads, PyTorch '
        f'{place["torch"]}; batches of {report["batch_sizes"][0]} at '
        f'{report["shape"][0]} × {report["shape"][1]} pixels, medians of '
        f'{report["repeats"]} turns, by the {report["clock"]} clock.'
    ]
    said += [
        f'{target} differs from PyTorch by {error:.2g} of the largest output.'
        for target, error in errors.items()
    ]
    said.append(
        f'Written: {", ".join(dict.fromkeys(report["files"].values()))}'
    )
    said += [
        f'Where TensorRT is: sh {Path(path).parent}/*.trtexec.sh'
        for row, path in report['files'].items()
        if row == 'tensorrt'
    ]
    return '\n'.join(said)
