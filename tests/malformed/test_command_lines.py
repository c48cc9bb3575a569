"""Command lines of every tool, mistyped."""

import os
import subprocess
import sys
from pathlib import Path

import command_lines
import pytest
from malformed import WHOLE, accepted, cases, in_turn, judge
from runs import forget_runs

pytestmark = pytest.mark.slow

WORDS = (
    *('', 'abc', '-1', '0', '1.5', 'nan', 'inf', '1000000', '1000000000000'),
    *('no/such', 'text.txt', 'images', 'x' * 5000, 'é\udcff', 'None', '[]'),
    *('http://127.0.0.1:9/x.pth', 'x.exe', '/dev/null', '/proc/x/y', '1e-30'),
)
SETTINGS = """
model.backbone.img_size model.backbone.window_size model.backbone.arch
model.backbone.arch.embed_dim model.backbone.arch.depth model.backbone.type
model.backbone.checkpoint model.backbone.out_indices model.backbone.no_such
model.backbone.patch_slimming.keep_rate model.backbone.token_merging
model.decode_head.num_classes model.decode_head.in_channels
model.decode_head.type model.decode_head.in_index model.test_cfg.mode
model.data_preprocessor.size model.data_preprocessor.mean model crop_size
train_dataloader.batch_size train_dataloader.num_workers work_dir no_such.key
train_dataloader.dataset.data_root train_dataloader.dataset.pipeline
train_dataloader.dataset.metainfo.classes train_dataloader.sampler.type
val_dataloader.batch_size val_dataloader.dataset.type val_evaluator.type
optim_wrapper.optimizer.lr optim_wrapper.optimizer.type param_scheduler.0.end
optim_wrapper.clip_grad.max_norm train_cfg.max_iters train_cfg.val_interval
randomness.seed default_scope log_level load_from default_hooks custom_hooks
default_hooks.checkpoint.interval visualizer env_cfg.cudnn_benchmark resume
"""
TOOLS = [*command_lines.lines(Path('root'), Path('out'))]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('files')
    command_lines.make_files(folder)
    return folder


def test_every_tool_has_a_command_line():
    known = {name.split()[0] for name in TOOLS}
    assert known == {p.stem for p in command_lines.ROOT.glob('tools/*.py')}


@pytest.mark.skipif(not WHOLE, reason='their own tests run them, too')
@pytest.mark.parametrize('name', sorted({*TOOLS} - {'convert_isaid'}))
def test_command_lines_are_good(name, root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    forget_runs()
    tool, words = command_lines.lines(root, tmp_path / 'out')[name]
    with command_lines.typed(tool, words):
        assert accepted(command_lines.main_of(tool), [''], capsys, tmp_path)


def mistyped(rng, tool, words, root):
    """A command line with a slip, and what a message has to name."""
    parser = command_lines.parser_of(tool, words)
    options = [
        a for a in parser._actions if a.option_strings and a.dest != 'help'
    ]
    flags = [i for i, w in enumerate(words) if w.startswith('--')]
    places = range(tool == 'visualize', min([*flags, len(words)]))
    word = rng.choice(WORDS)
    if word in ('text.txt', 'images'):
        word = str(root / word)
    how = rng.randrange(10)
    overrides = any('--cfg-options' in a.option_strings for a in options)
    if how < 3 and overrides:
        pair = f'{rng.choice(SETTINGS.split())}={word}'
        return [*words, '--cfg-options', pair], [
            word,
            pair.split('=')[0].split('.')[-1],
        ]
    if how < 5 and places:
        at = rng.choice(places)
        return [*words[:at], word, *words[at + 1 :]], [word]
    if how == 5 and len(places) > 0:
        at = rng.choice(places)
        # what takes its place is another's; so is what is said of it
        return [*words[:at], *words[at + 1 :]], ['', words[at]]
    if how == 6:
        return [*words, '--no-such-option', word], ['--no-such-option']
    option = rng.choice(options)
    flag = option.option_strings[0]
    given = [word] * rng.choice([1, 1, 2, 3] if option.nargs == '+' else [1])
    given = given if option.nargs != 0 else []
    return [*words, flag, *given], [word, flag, flag.strip('-')]


@cases('command lines')
def test_command_lines_are_right_or_refused(
    rng, root, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    forget_runs()
    name = in_turn(rng, TOOLS)
    out = tmp_path / 'out'
    tool, words = command_lines.lines(root, out)[name]
    words, told = mistyped(rng, tool, words, root)
    # paths lose a slash; long ones are cut
    told += [word.replace('//', '/') for word in told]
    told = [
        word[:60].encode(errors='backslashreplace').decode() for word in told
    ]
    outs = [path for path in (out / 'w.pth', out / 'n.onnx') if path]

    def main():
        command_lines.main_of(tool)()

    with command_lines.typed(tool, words):
        accepted(main, told, capsys, tmp_path, outs)


@pytest.mark.parametrize(
    'words',
    [
        ['bash', 'dist_train.sh'],
        ['bash', 'dist_train.sh', 'config.py', 'two'],
        ['bash', 'dist_test.sh', 'config.py', 'run.pth', '0'],
        ['bash', 'slurm_train.sh', 'partition', 'job'],
        [sys.executable, 'train.py', 'config.py', '--cfg-options', 'model=1'],
        [sys.executable, 'plan.py', '--arch', 'x' * 5000, '--target', '0.3'],
    ],
    ids=lambda words: ' '.join(words[1:])[:30],
)
def test_processes_of_their_own(words, root):
    """A status and a sentence, and no traceback, as a shell gets them."""
    program, tool, *rest = words
    done = subprocess.run(
        [program, command_lines.ROOT / 'tools' / tool, *rest],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, 'PYTHONPATH': str(command_lines.ROOT)},
    )
    # what bash prints is the usage alone
    said = done.stderr.replace('usage', 'tool: error: give', program == 'bash')
    judge(done.returncode, said, [''])
    assert done.returncode
