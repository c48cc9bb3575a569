"""Measure what only a card can show: kernels, precisions, compiled graphs.

Backbones, whole models and a detector, compressed and not, eager, compiled
and as CUDA graphs; a step of training; two processes; numbers against those
of a CPU. No data and no download. What does not fit into --minutes is left
out, the most telling comes first. Writes DIR/report.json and DIR/report.md,
whose tables are those of docs/speed.md.
"""

from datetime import date
from pathlib import Path

from mmvitcompress.analysis.candidates import choose_device
from mmvitcompress.analysis.gpu.budget import measure_within
from mmvitcompress.analysis.gpu.order import tasks
from mmvitcompress.analysis.gpu.plan import ReportPlan, quick_plan
from mmvitcompress.analysis.gpu.tables import report_markdown
from mmvitcompress.analysis.report import environment
from mmvitcompress.deploy.optimize import optimize_for_inference
from mmvitcompress.errors import ConfigError, RunError
from mmvitcompress.utils import cli
from mmvitcompress.utils.checks import check_positive
from mmvitcompress.utils.files import write_atomically


def parse_args():
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add('--out', default='work_dirs/gpu_report', metavar='DIR')
    add('--minutes', type=int, default=10, help='how long it may take')
    add('--device', default='cuda', help='such as cuda:1')
    quick_help = 'small models and one turn: whether all works, on a CPU too'
    add('--quick', action='store_true', help=quick_help)
    return parser.parse_args()


def main():
    args = parse_args()
    check_positive('minutes', args.minutes)
    device = choose_device(args.device)
    if device.type != 'cuda' and not args.quick:
        raise ConfigError(
            f'device {args.device!r} is no card, and the models are too large '
            'for it: add --quick, or use tools/benchmark.py'
        )
    make = quick_plan if args.quick else ReportPlan
    plan = make(device, prepare=optimize_for_inference)
    found, skipped = measure_within(tasks(plan), args.minutes)
    report = dict(
        date=date.today().isoformat(),
        minutes=args.minutes,
        quick=args.quick,
        shape=list(plan.shape),
        detector_shape=list(plan.detector_shape),
        batches=list(plan.batches),
        repeats=plan.repeats,
        sections=found,
        skipped=[each._asdict() for each in skipped],
        environment=environment(device),
    )
    text = report_markdown(report)
    out = Path(args.out)
    cli.write_json(out / 'report.json', report)
    write_atomically(out / 'report.md', text)
    print(f'\n{text}\nwritten to {out}/report.json and {out}/report.md')
    failed = [f'{each.section}: {each.row}' for each in skipped if each.failed]
    if failed:
        raise RunError(f'{", ".join(failed)} failed; {out}/report.md says how')


if __name__ == '__main__':
    cli.run(main)
