"""Checkpoints that a kill at any moment leaves whole.

MMEngine's ``CheckpointHook`` deletes the outdated checkpoint, then writes the
new one into its final place: a run killed in between has none to resume from.
"""

from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmvitcompress.checkpoints.file import Checkpoint, read_checkpoint
from mmvitcompress.errors import CheckpointError
from mmvitcompress.registry import HOOKS
from mmvitcompress.utils.files import write_atomically

POINTER = 'last_checkpoint'  # MMEngine's name for it


class AtomicLocalBackend(LocalBackend):
    """MMEngine's storage on local disks, writing atomically."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes, making the folder if need be."""
        write_atomically(filepath, obj)

    def put_text(
        self, obj: str, filepath: str | Path, encoding: str = 'utf-8'
    ) -> None:
        """Write text, making the folder if need be."""
        write_atomically(filepath, obj.encode(encoding))


register_backend('atomic_local', AtomicLocalBackend, force=True)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """A ``CheckpointHook`` that at no time leaves a run without checkpoint.

    The new one is written beside its final place and moved there, then
    ``last_checkpoint`` is, and only then goes what is outdated. Before saving
    it calls ``before_save_on_all_ranks(runner)`` of every hook that has it,
    for what rank 0 cannot know alone.

    Args:
        **kwargs: See ``mmengine.hooks.CheckpointHook``.
    """

    def before_train(self, runner: Runner) -> None:
        """Choose where to save."""
        super().before_train(runner)
        chosen = self.backend_args or self.file_client_args
        if chosen is None and isinstance(self.file_backend, LocalBackend):
            self.backend_args = dict(backend='atomic_local')

    def _save_checkpoint_with_step(self, runner, step, meta):
        runner.call_hook('before_save_on_all_ranks')
        outdated = self._rotate(runner, step)
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            pointer = Path(runner.work_dir, POINTER)
            write_atomically(pointer, self.last_ckpt.encode())
            if outdated is not None and self.file_backend.isfile(outdated):
                self.file_backend.remove(outdated)

    def _rotate(self, runner: Runner, step: int) -> str | None:
        """Note that ``step`` is kept; return the path that no longer is."""
        if self.max_keep_ckpts <= 0 or step in self.keep_ckpt_ids:
            return None
        outdated = None
        if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
            name = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
            outdated = self.file_backend.join_path(self.out_dir, name)
        self.keep_ckpt_ids.append(step)
        kept = list(self.keep_ckpt_ids)
        runner.message_hub.update_info('keep_ckpt_ids', kept)
        return outdated


def find_resumable(work_dir: str | Path) -> Checkpoint | None:
    """The newest checkpoint that can be read of a run, whose folder may have
    been moved; None if it never saved one, CheckpointError if none can."""
    paths = saved_checkpoints(work_dir)
    for path in paths:
        try:
            return read_checkpoint(path)
        except CheckpointError as error:
            print_log(f'Not resuming from it: {error}', 'current')
    if paths:
        raise CheckpointError(
            f'none of the checkpoints in {str(work_dir)!r} can be read; name '
            'another with --resume PATH or start without --resume'
        )
    return None


def saved_checkpoints(work_dir: str | Path) -> list[Path]:
    """What a run may be resumed from: what it saved last, then what before."""
    work_dir, name = Path(work_dir), ''
    pointer = work_dir / POINTER
    if pointer.is_file():
        name = pointer.read_text(errors='replace').strip('\0 \n')
    last = Path(name)
    if not last.is_file():
        last = work_dir / last.name
    kind, step = _kind_and_step(last)
    pointed = bool(name) and (step is not None or last.is_file())
    folder = last.parent if pointed else work_dir
    saved = []
    for path in folder.glob('*.pth'):
        other, number = _kind_and_step(path)
        # later steps are left over from an older run in the same folder
        older = step is not None and other == kind and (number or 0) < step
        if older if pointed else other in ('iter_', 'epoch_'):
            saved.append(path)
    saved.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return [last, *saved] if pointed else saved


def _kind_and_step(path: Path) -> tuple[str, int | None]:
    """``iter_40.pth`` -> 'iter_', 40."""
    kind = path.stem.rstrip('0123456789')
    number = path.stem[len(kind) :]
    return kind, int(number) if number else None
