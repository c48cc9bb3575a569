"""Following a page from its first command to its last."""

import re
import shlex
from pathlib import Path

import mmseg
import timm
import torch
from clone import Clone
from documents import ROOT, steps, words_of

from mmvitcompress.models import ImageClassifier

# the pages that tell the whole story; they take longer than all others
GUIDE = ('README.md', 'index.md', 'usage.md')
# what nobody runs here, and why
EXCLUDED = {
    'python tools/compare.py configs/tuned_cait_dinov2_s_camvid.py '
    'configs/tuned_atme_dinov2_s_camvid.py '
    'configs/tuned_tome_dinov2_s_camvid.py '
    '--baseline configs/tuned_dense_dinov2_s_camvid.py --seeds 0 1 2 '
    '--out compare.png --json compare.json': (
        'it starts twelve runs; tests/tools/test_compare.py starts two'
    ),
    **{
        f'python tools/compare.py --table configs/tables/{words}': (
            'it starts dozens of runs; tests/tools/test_compare.py two, '
            'tests/analysis/test_table_rows.py writes all rows'
        )
        for words in (
            'tiny_imagenet_20.py --seeds 0 1',
            'camvid.py --seeds 0 1',
            'camvid.py --rows ATME ToMe EViT CAIT --seeds 0 1 '
            '--json camvid.json',
        )
    },
    'python tools/export.py configs/tuned_cait_dinov2_s_camvid.py cait '
    '--checkpoint small.pth --baseline '
    'configs/tuned_dense_dinov2_s_camvid.py --baseline-checkpoint dense.pth '
    '--target onnx openvino --int8 --bf16 --calibration-images 24 '
    '--check-images 77 --repeats 5 --clock cpu': (
        'OpenVINO need not be there; tests/deploy has its parts'
    ),
    'python tools/export.py configs/semfpn_dense_dinov2_s_camvid.py dense '
    '--checkpoint work_dirs/semfpn_dense_dinov2_s_camvid/iter_320.pth '
    '--target onnx openvino --int8 --bf16 --calibration-images 64 '
    '--check-images 101 --json dense.json': (
        'OpenVINO need not be there; tests/deploy has its parts'
    ),
    **{
        f'python tools/export.py configs/{head}_{method}_{net}_s_ade20k.py '
        f'{head} --target torch onnx openvino --baseline '
        f'configs/{head}_dense_{net}_s_ade20k.py --batch-size 1 8 --memory '
        f'--json {head}{name}.json': 'the same'
        for method, net, name in (
            ('cait', 'deit', ''),
            ('atme', 'dinov2', '_dinov2'),
        )
        for head in ('semfpn', 'upernet')
    },
    'make gpu': 'it needs a card; tests/analysis/test_gpu_report.py does not',
    'python tools/gpu_report.py --minutes 20 --out gpu': 'the same',
    'make test': 'it runs this test',
    'make docs': 'it is the build of these pages',
    'bash tools/dist_train.sh CONFIG 8': (
        'it names no config; docs/usage.md has the same line with one'
    ),
}
# short names of configs, for the lines below
NAMES = (
    {
        f'{method}_digits': f'configs/upernet_{method}_vit_micro_digits.py'
        for method in ('dense', 'atme', 'cait')
    }
    | {
        f'{method}_tiny': f'imagenet/{method}_vit_micro_tiny_imagenet_20'
        for method in ('cait', 'cdcp')
    }
    | dict(pretrain='imagenet/pretrain_vit_micro_digits')
)
# What a page takes for granted. 'run CONFIG FILE' is a checkpoint that the
# run of a config would have left, with random weights; 'export CONFIG FILE'
# one that was exported from it.
BEFORE = {
    'deployment.md': """
        export imagenet/cait_vit_micro_digits small.pth
    """,
    'index.md': """
        export imagenet/dense_deit_s_in1k checkpoints/deit_small_in1k.pth
        export upernet_cait_deit_s_ade20k checkpoints/cait_deit_small_in1k.pth
    """,
    'papers.md': """
        export imagenet/dense_deit_s_in1k checkpoints/deit_small_in1k.pth
    """,
    'python.md': """
        run upernet_cait_deit_s_ade20k work_dirs/{config}/iter_160000.pth
        run upernet_cait_deit_s_ade20k iter_160000.pth
    """,
    'segmentation.md': """
        export imagenet/cait_deit_t_in1k checkpoints/cait_deit_tiny_in1k.pth
    """,
    'speed.md': """
        run upernet_dense_vit_micro_digits dense.pth
        run upernet_cait_vit_micro_digits cait.pth
    """,
    'usage.md': """
        export imagenet/cait_vit_micro_digits small.pth
    """,
    'visualization.md': """
        run imagenet/lifeslim_vit_micro_digits work_dirs/{config}/epoch_45.pth
        run {cdcp_tiny} work_dirs/{config}/epoch_8.pth
        run {cdcp_tiny} work_dirs/cdcp_neither/epoch_8.pth
        export {cdcp_tiny} work_dirs/{config}/small.pth
        export {cait_tiny} work_dirs/{config}/small.pth
        run {pretrain} work_dirs/demo/{config}/epoch_30.pth
        export imagenet/cait_vit_micro_digits work_dirs/demo/{config}/small.pth
        run upernet_atme_vit_micro_nuclei work_dirs/{config}/iter_200.pth
        run upernet_dense_vit_micro_nuclei work_dirs/{config}/iter_200.pth
        export imagenet/dense_deit_s_in1k checkpoints/deit_small_in1k.pth
        run upernet_dense_vit_micro_digits dense.pth
        run upernet_atme_vit_micro_digits atme.pth
        run upernet_cait_vit_micro_digits cait.pth
        python tools/test.py {dense_digits} dense.pth --json dense.json
        python tools/test.py {atme_digits} atme.pth --json atme.json
        python tools/test.py {cait_digits} cait.pth --json cait.json
        python tools/benchmark.py {atme_digits} {cait_digits} \
            --baseline {dense_digits} --part backbone --json speed.json
    """,
}


def follow(page, root, data):
    """Do all that a page says, in its order, in a clone of its own.

    Args:
        page: The Markdown file.
        root: An empty folder.
        data: The data's folder, see :class:`Clone`.

    Returns:
        What was done: command lines, their words joined, and blocks of
        Python.
    """
    clone, names, done = Clone(root, data), {}, []
    for line in BEFORE.get(page.name, '').strip().splitlines():
        prepare(clone, line)
    for language, text in steps(page):
        if language == 'bash':
            text = shlex.join(words_of(text))
        if text in EXCLUDED or text in done:
            continue
        print(f'\n-- {page.name}: {text}', flush=True)
        if language == 'bash':
            type_in(clone, words_of(text))
        elif re.match(r'_base_ =|\w+ ?= ?dict\(|custom_hooks =', text):
            configure(clone, text)
        else:
            names = names or at_hand()
            clone.notebook(text, names)
        done.append(text)
    return done


def prepare(clone, line):
    """Make what a page takes for granted."""
    kind, config, *words = words_of(line)
    if kind == 'python':
        clone.tool(config, *(word.format(**NAMES) for word in words))
        return
    config = config.format(**NAMES)
    path = words[0].format(config=Path(config).name)
    clone.stand_in(path, f'{config}.py', exported=kind == 'export')


def type_in(clone, words):
    """Run a command line."""
    command, *words = words
    if command == 'export':
        clone.environment.update(word.split('=') for word in words)
    elif command == 'python':
        clone.tool(*words)
    elif command == 'bash':
        clone.script(*words)
    elif (command, *words) == ('make', 'demo'):
        makefile = (ROOT / 'Makefile').read_text()
        recipe = r'^demo:.*\n\t@\$\(RUN\) tools/demo\.py$'
        assert re.search(recipe, makefile, re.M)
        clone.demo()
    else:
        raise AssertionError(
            f'nobody runs {command!r}: let tests/helpers/story.py do so, or '
            'exclude the line and say why'
        )


def configure(clone, block):
    """Take a block as what one adds to a config, and use the result.

    With hooks it trains; otherwise the model is built and run.
    """
    if block.startswith('backbone ='):  # a file for --backbone
        (clone.root / 'mine.py').write_text(block)
        config = 'configs/semfpn_dense_deit_s_camvid.py'
        clone.tool('tools/get_flops.py', config, '--backbone', 'mine.py')
        return
    base = './imagenet/dense_deit_s_in1k.py'
    if '_delete_' in block:  # for any config of MMSegmentation
        configs = Path(mmseg.__file__).parent / '.mim/configs'
        (base,) = configs.glob('vit/vit_deit-s16_mln_upernet_*512x512.py')
    if not block.startswith(('model', '_base_', 'custom_hooks')):
        block = f'model = dict(backbone=dict({block}))'  # one argument of it
    if not block.startswith('_base_'):
        block = f'_base_ = {str(base)!r}\n{block}'
    (clone.root / 'configs/mine.py').write_text(block)
    if 'custom_hooks' in block:
        clone.tool('tools/train.py', 'configs/mine.py')
        return
    words = ['tools/get_flops.py', 'configs/mine.py']
    if '_delete_' not in block:  # names no checkpoint of its own
        words += ['--cfg-options', 'model.backbone.checkpoint=None']
    clone.tool(*words)


def at_hand():
    """What the reader of a block of Python has already."""
    torch.manual_seed(0)
    slimming = dict(base_layer=4, layers=(4, 7, 10), keep_rate=0.7)
    vit = dict(type='CompressedViT', arch='deit_tiny', patch_slimming=slimming)
    images = torch.rand(2, 3, 224, 224)
    return dict(
        images=images,
        model=ImageClassifier(vit, num_classes=1000).eval(),
        pictures=list(images.permute(0, 2, 3, 1).numpy()),
        vit=timm.create_model('deit_tiny_patch16_224').eval(),
    )
