"""``predict``: a trained model on images, folders and videos."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any

from mmengine.config import Config
from rich.console import Console
from rich.progress import track

from mmvitcompress.errors import ConfigError, UserError
from mmvitcompress.inference.inputs import (
    Frame,
    Input,
    count_frames,
    find_sources,
    read_frames,
)
from mmvitcompress.inference.outputs import Writer
from mmvitcompress.inference.predictor import Predictor
from mmvitcompress.utils.checks import check_flag, check_positive, is_number
from mmvitcompress.utils.files import NO_ROOM, write_json


def predict(
    config: str | Path | Config,
    checkpoint: str | Path,
    inputs: Sequence[str | Path],
    out: str | Path,
    device: str | None = None,
    batch_size: int = 1,
    classes: Sequence[str] | None = None,
    topk: int = 5,
    score_threshold: float = 0.3,
    opacity: float = 0.5,
    progress: bool = True,
    overlay: bool = True,
) -> dict:
    """Predict on images, folders and videos, and write what is seen.

    Args:
        config, checkpoint, device, classes: See :class:`Predictor`; a
            classifier's weights may be exported ones.
        inputs: Images, videos and folders of them.
        out: Folder for results, see :class:`~.outputs.Writer`, and a record
            of all in ``predictions.json``.
        batch_size: How many images of one size run together.
        topk: Classes that are named for each image of a classifier.
        score_threshold: Least score of a detection, in [0, 1].
        opacity: Of the colours drawn over images, in [0, 1].
        progress: Whether to show a progress bar on stderr.
        overlay: Whether to draw over images, which for a detector's large
            ones takes longer than predicting.

    Returns:
        What was written to ``predictions.json``, of builtin types: ``task``,
        ``classes``, ``images`` (frames of videos included), ``seconds`` with
        reading and writing, for each input a record in ``inputs``, and in
        ``failures`` each ``input`` that could not be read, predicted on or
        drawn, with its ``error``. The others are not affected.

    Raises:
        ConfigError: If an argument is out of range or the config is wrong.
        CheckpointError: If the checkpoint is missing or of another model.
        DataError: If an input is missing, of an unknown kind, or a folder
            without images.
        WriteError: If a disk is full.
    """
    check_positive('batch_size', batch_size)
    check_positive('topk', topk)
    check_flag('overlay', overlay)
    drawn = dict(score_threshold=score_threshold, opacity=opacity)
    for name, value in drawn.items():
        if not (is_number(value) and 0 <= value <= 1):
            raise ConfigError(f'{name} must lie in [0, 1], but got {value!r}')
    sources = find_sources(inputs, besides=out)
    total = sum(map(count_frames, sources))
    predictor = Predictor(config, checkpoint, device, classes)
    start, count = time.perf_counter(), 0
    failures: dict[Input, str] = {}
    frames = track(
        read_frames(sources, failures, predictor.color_type),
        description=predictor.task,
        total=total,
        console=Console(stderr=True),
        disable=not progress,
    )
    with Writer(out, predictor, topk, **drawn, overlay=overlay) as writer:
        for batch in batches(frames, batch_size):
            for frame, result in predict_each(predictor, batch, failures):
                with noting(failures, frame.source):
                    writer.write(frame, result)
                    count += 1
    failed = {str(f.path) for f in failures if not f.is_video}
    report = dict(
        task=predictor.task,
        config=str(getattr(config, 'filename', config)),
        checkpoint=str(checkpoint),
        classes=list(predictor.classes),
        images=count,
        seconds=time.perf_counter() - start,
        inputs=[r for r in writer.records if r['input'] not in failed],
        failures=[
            dict(input=str(source.path), error=error)
            for source, error in failures.items()
        ],
    )
    write_json(Path(out) / 'predictions.json', report)
    return report


def batches(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """Group neighbours of one size: others would be padded to the largest,
    and results depend on what else is in the batch."""
    for _, group in groupby(frames, lambda frame: frame.image.shape):
        while batch := list(islice(group, size)):
            yield batch


def predict_each(
    predictor: Predictor,
    batch: Sequence[Frame],
    failures: dict[Input, str],
) -> list[tuple[Frame, Any]]:
    """Predict on frames of one size, one by one where they fail together;
    what fails alone is noted and left out."""
    results = []
    with noting(failures if len(batch) == 1 else {}, batch[0].source):
        results = predictor([frame.image for frame in batch])
    if not results and len(batch) > 1:
        alone = ([frame] for frame in batch)
        parts = (predict_each(predictor, one, failures) for one in alone)
        return list(chain.from_iterable(parts))
    return list(zip(batch, results))


@contextmanager
def noting(failures: dict[Input, str], source: Input) -> Iterator[None]:
    """Note what goes wrong with an input, whatever it is: others are to go
    on, unless there is no room left for them."""
    try:
        yield
    except Exception as error:
        if getattr(error, 'errno', None) in NO_ROOM:
            raise
        bug = not isinstance(error, UserError)
        kind = f' with {type(error).__name__}' if bug else ''
        failures[source] = f'{str(source.path)!r} fails{kind}: {error}'
