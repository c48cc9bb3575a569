"""Read every label map once before a training starts."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import print_log
from PIL import Image
from rich.console import Console
from rich.progress import track

from mmvitcompress.datasets.checks import CheckedPairs
from mmvitcompress.datasets.label_maps import (
    IGNORED,
    check_labels,
    check_size,
    label_table,
    read_labels,
)
from mmvitcompress.errors import DataError
from mmvitcompress.utils.files import write_json
from mmvitcompress.utils.images import UNREADABLE

NAMED = 20  # files that an error names; the others are counted
FEW = 200  # files that are read without other processes
_ORIENTATION = 0x0112  # EXIF; from 5 on, width and height change places


def check_run(loops: Iterable[Any]) -> None:
    """Check the data of a run's loops once, for all of its processes.

    Args:
        loops: MMEngine's, of training and validation; None is passed over.

    Raises:
        DataError: See :func:`check_label_maps`; in every process.
    """
    problem = [None]
    if is_main_process():
        datasets = [loop.dataloader.dataset for loop in loops if loop]
        try:
            check_label_maps(datasets)
        except DataError as error:
            problem = [str(error)]
    broadcast_object_list(problem)
    if problem[0]:
        raise DataError(problem[0])


def check_label_maps(datasets: Iterable[Any], progress: bool = True) -> None:
    """Read each label map: its form, its labels, its size and its image's.

    What was read is remembered in the user's cache folder for as long as the
    times and sizes of the files stay. Sets that hold a single class, or
    nothing but what is ignored, are warned of. Data of other kinds, and what
    doesn't lie on local disks, is passed over.

    Args:
        datasets: Data sets, or such as repeat or join others.
        progress: Whether to show a progress bar on stderr. Defaults to True.

    Raises:
        DataError: If label maps can't be used; it names them.
    """
    for dataset in chain.from_iterable(map(_inner, datasets)):
        infos = map(dataset.get_data_info, range(len(dataset)))
        pairs = [
            (info['seg_map_path'], info['img_path'])
            for info in infos
            if 'seg_map_path' in info and not dataset.backend_args
        ]
        if pairs:
            _check(dataset, pairs, _read_all(pairs, progress))


def _inner(dataset: Any) -> Iterator[CheckedPairs]:
    """Data sets of ours in what repeats, joins or cuts others."""
    if isinstance(dataset, CheckedPairs):
        yield dataset
    parts = getattr(dataset, 'datasets', [getattr(dataset, 'dataset', None)])
    for part in (part for part in parts if part is not None):
        yield from _inner(part)


def _check(
    dataset: CheckedPairs, pairs: Sequence[tuple], found: Sequence[dict]
) -> None:
    problems, labels = [], set()
    for (path, _), facts in zip(pairs, found):
        if 'problem' not in facts:
            labels.update(facts['labels'])
            try:
                check_labels(np.array(facts['labels']), path, dataset.labels)
                check_size(facts['size'], path, facts['image'])
            except DataError as error:
                facts = dict(problem=str(error))
        if 'problem' in facts:
            problems.append(facts['problem'])
    if problems:
        more = len(problems) - NAMED
        dataset.refuse(
            f'{len(problems)} of {len(pairs)} label maps cannot be used: '
            + '; '.join(problems[:NAMED])
            + (f'; and {more} more' if more > 0 else '')
        )
    table = label_table(dataset.label_map, dataset.reduce_zero_label)
    learnt = {int(table[label]) for label in labels} - {IGNORED}
    if len(learnt) < 2:
        _warn(dataset, len(pairs), learnt, IGNORED in labels)


def _warn(
    dataset: CheckedPairs, count: int, learnt: set[int], ignored: bool
) -> None:
    """Tell of a set from which nothing, or one class only, can be learnt."""
    where = f'The {count} label maps in {dataset.data_prefix["seg_map_path"]}'
    hint = ''
    if not learnt:
        said = 'hold nothing but ignored pixels'
    else:
        label = learnt.pop()
        name = dataset.metainfo['classes'][label]
        said = f'hold a single class, {label} ({name})'
        if ignored:
            said += f', and {IGNORED}, which is ignored'
            hint = ' Masks of 0 and 255 must become 0 and 1.'
    print_log(f'{where} {said}.{hint}', 'current', logging.WARNING)


def _read_all(pairs: Sequence[tuple[str, str]], progress: bool) -> list[dict]:
    """What all pairs hold, from memory where files are as they were."""
    memory = _memory(pairs[0][0])
    known = {}
    with suppress(OSError, ValueError):
        known = json.loads(memory.read_text())
    stamps = [_stamp(pair) for pair in pairs]
    new = [
        (pair, stamp)
        for pair, stamp in zip(pairs, stamps)
        if (known.get(pair[0]) or {}).get('stamp') != stamp
    ]
    todo = [pair for pair, _ in new]
    workers = min(8, os.cpu_count() or 1) if len(todo) > FEW else 0
    bar = dict(
        description='checking label maps',
        total=len(todo),
        console=Console(stderr=True),
        disable=not progress or not todo,
    )
    if workers:
        with ProcessPoolExecutor(workers) as pool:
            read = pool.map(read_pair, todo, chunksize=16)
            found = list(track(read, **bar))
    else:
        found = list(track(map(read_pair, todo), **bar))
    for (pair, stamp), facts in zip(new, found):
        known[pair[0]] = dict(facts, stamp=stamp)
    # a cache that can't be written costs the next run some seconds
    with suppress(OSError):
        write_json(memory, known)
    return [known[path] for path, _ in pairs]


def _memory(path: str) -> Path:
    """The file that remembers what a folder of label maps holds."""
    cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    folder = str(Path(path).parent.resolve())
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(cache, 'mmvitcompress', f'labels_{digest}.json')


def _stamp(pair: tuple[str, str]) -> list[int]:
    """Times and sizes of both files."""
    try:
        stats = [os.stat(path) for path in pair]
    except OSError:
        return [-1]
    return [n for s in stats for n in (s.st_mtime_ns, s.st_size)]


def read_pair(pair: tuple[str, str]) -> dict:
    """What a label map and the header of its image hold.

    Args:
        pair: Paths of a label map and its image.

    Returns:
        ``size`` and ``image``, (height, width) of both, and ``labels``; or
        the ``problem`` of a file that can't be read.
    """
    path, image = pair
    try:
        labels = read_labels(Path(path).read_bytes(), path)
        size = _image_size(image)
    except UNREADABLE as error:
        named = isinstance(error, DataError)
        problem = str(error) if named else f'{image} cannot be read ({error})'
        return dict(problem=problem)
    held = np.unique(labels).astype(int).tolist()
    return dict(size=[*labels.shape], image=size, labels=held)


def _image_size(path: str) -> list[int]:
    """(height, width) as an image is shown."""
    with Image.open(path) as image:
        turned = image.getexif().get(_ORIENTATION, 1) >= 5
        return [*image.size] if turned else [*image.size[::-1]]
