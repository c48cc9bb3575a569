"""What is written of predictions: pictures, index maps, JSON."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mmvitcompress.datasets.palettes import (
    Colour,
    background_of,
    class_palette,
)
from mmvitcompress.errors import DataError
from mmvitcompress.inference.inputs import Frame, Source, frame_rate
from mmvitcompress.inference.predictor import Predictor
from mmvitcompress.utils.files import write_json


class Writer:
    """Writes what one model predicts into one folder.

    Images: ``overlay/NAME.png``, for segmentation ``labels/NAME.png`` with
    the class of each pixel, and ``legend.png`` for all of them; the class
    that is called background is left as it is. For detection
    ``predictions/NAME.json``. Videos:
    ``overlay/NAME.mp4``, ``labels/NAME/000000.png`` and so on. A classifier
    draws nothing.

    Args:
        out: The folder.
        predictor: The model that predicts.
        topk: Classes that a classifier's records name. Defaults to 5.
        score_threshold: Least score of a detection that is drawn or written.
            Defaults to 0.3.
        opacity: Of the colours drawn over images. Defaults to 0.5.
    """

    def __init__(
        self,
        out: str | Path,
        predictor: Predictor,
        topk: int = 5,
        score_threshold: float = 0.3,
        opacity: float = 0.5,
    ):
        self.out = Path(out)
        self.task = predictor.task
        self.classes = predictor.classes
        self.topk = min(topk, len(self.classes))
        self.score_threshold = score_threshold
        self.records: list[dict] = []
        self._source: Source | None = None
        self._video: cv2.VideoWriter | None = None
        self.palette = predictor.palette or class_palette(self.classes)
        self.opacity = opacity
        if self.task == 'detection':
            from mmdet.visualization import DetLocalVisualizer

            self._visualizer = DetLocalVisualizer(alpha=opacity)
            self._visualizer.dataset_meta = dict(
                classes=self.classes, palette=self.palette
            )

    def __enter__(self) -> 'Writer':
        if self.task == 'segmentation':
            self.out.mkdir(parents=True, exist_ok=True)
            legend = draw_legend(self.classes, self.palette)
            _write_image(self.out / 'legend.png', legend[..., ::-1])
        return self

    def __exit__(self, kind, *args) -> None:
        self._finish(complete=kind is None)

    def write(self, frame: Frame, prediction) -> None:
        """Write what was predicted on a frame."""
        if frame.source is not self._source:
            self._finish()
            self._begin(frame.source)
        record = self.records[-1]
        if self.task == 'classification':
            self._add(record, dict(top=self._top(prediction)))
            return
        prediction = prediction.cpu()
        if self.task == 'segmentation':
            labels = prediction.pred_sem_seg.data[0].numpy()
            self._write_labels(frame, labels)
        else:
            found = self._detections(prediction.pred_instances.numpy())
            self._add(record, dict(detections=found))
        self._write_overlay(frame, prediction)

    def _begin(self, source: Source) -> None:
        self._source = source
        record = dict(input=str(source.path))
        if source.is_video:
            record['frames'] = []
        self.records.append(record)

    def _add(self, record: dict, content: dict) -> None:
        if 'frames' in record:
            record['frames'].append(content)
        else:
            record.update(content)

    def _finish(self, complete: bool = True) -> None:
        """Close what belongs to one input."""
        if self._video is not None:
            self._video.release()
            self._video = None
        if self._source is None or not complete:
            return
        record, source = self.records[-1], self._source
        self._source = None
        if self.task == 'segmentation':
            record.pop('frames', None)
        elif self.task == 'detection':
            path = self._path('predictions', source, '.json')
            write_json(path, record)
            record.pop('frames', None)
            record['detections'] = str(path)

    # -- one kind of file each ----------------------------------------------

    def _path(self, folder: str, source: Source, suffix: str) -> Path:
        path = self.out / folder / (source.name + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _top(self, probabilities: Tensor) -> list[dict]:
        scores, labels = probabilities.topk(self.topk)
        return [
            {'label': label, 'class': self.classes[label], 'score': score}
            for label, score in zip(labels.tolist(), scores.tolist())
        ]

    def _write_labels(self, frame: Frame, labels: np.ndarray) -> None:
        source = frame.source
        suffix = f'/{frame.index:06d}.png' if source.is_video else '.png'
        path = self._path('labels', source, suffix)
        dtype = np.uint8 if len(self.classes) <= 256 else np.uint16
        _write_image(path, labels.astype(dtype))
        record = self.records[-1]
        record['labels'] = str(path.parent if source.is_video else path)

    def _detections(self, instances) -> list[dict]:
        """Instances by falling score, of builtin types."""
        found = []
        for index in np.argsort(-instances.scores, kind='stable'):
            score = float(instances.scores[index])
            if score < self.score_threshold:
                break
            label = int(instances.labels[index])
            entry = {'label': label, 'class': self.classes[label]}
            entry['score'] = score
            if 'bboxes' in instances:
                entry['box'] = instances.bboxes[index].tolist()
            if 'masks' in instances:
                entry['mask'] = _run_lengths(instances.masks[index])
            found.append(entry)
        return found

    def _write_overlay(self, frame: Frame, prediction) -> None:
        picture = self._draw(frame.image, prediction)[..., ::-1]
        picture = np.ascontiguousarray(picture)
        if not frame.source.is_video:
            path = self._path('overlay', frame.source, '.png')
            _write_image(path, picture)
        else:
            path = self._path('overlay', frame.source, '.mp4')
            self._write_frame(path, frame, picture)
        self.records[-1]['overlay'] = str(path)

    def _write_frame(
        self, path: Path, frame: Frame, picture: np.ndarray
    ) -> None:
        height, width = picture.shape[:2]
        if self._video is None:
            self._video = cv2.VideoWriter(
                str(path),
                cv2.VideoWriter_fourcc(*'mp4v'),
                frame_rate(frame.source.path),
                (width, height),
            )
            if not self._video.isOpened():
                raise DataError(f'video {str(path)!r} cannot be written')
        self._video.write(picture)

    def _draw(self, image: np.ndarray, prediction) -> np.ndarray:
        """What was predicted over an image in BGR; in RGB."""
        if image.ndim == 2:
            image = np.repeat(image[..., None], 3, axis=2)
        rgb = np.ascontiguousarray(image[..., ::-1])
        if self.task == 'segmentation':
            labels = prediction.pred_sem_seg.data[0].numpy()
            unpainted = background_of(self.classes)
            return paint(rgb, labels, self.palette, self.opacity, unpainted)
        self._visualizer.add_datasample(
            *('', rgb, prediction),
            draw_gt=False,
            pred_score_thr=self.score_threshold,
        )
        return self._visualizer.get_image()


def paint(
    image: np.ndarray,
    labels: np.ndarray,
    palette: Sequence[Colour],
    opacity: float,
    unpainted: int | None = None,
) -> np.ndarray:
    """Colours of labels (H, W) over an image (H, W, 3), but for one label."""
    colours = np.array(palette)[labels]
    weight = opacity * (labels != unpainted)[..., None]
    return (image * (1 - weight) + colours * weight).round().astype(np.uint8)


def draw_legend(
    classes: Sequence[str], palette: Sequence[Colour]
) -> np.ndarray:
    """A picture (H, W, 3), RGB, of the colour of each class."""
    line, font = 24, ImageFont.load_default(16)
    width = 3 * line + round(max(map(font.getlength, classes)))
    legend = Image.new('RGB', (width, line * len(classes)), 'white')
    pen = ImageDraw.Draw(legend)
    for row, (name, colour) in enumerate(zip(classes, palette)):
        corner = (4, line * row + 4)
        end = (2 * line - 4, line * row + line - 4)
        pen.rectangle((corner, end), tuple(colour), outline='black')
        pen.text((2 * line + 4, line * row + 1), name, 'black', font)
    return np.array(legend)


def _run_lengths(mask: np.ndarray) -> dict:
    """A mask (H, W) in COCO's compressed run-length encoding."""
    from pycocotools.mask import encode

    encoded = encode(np.asfortranarray(mask.astype(np.uint8)))
    return dict(size=encoded['size'], counts=encoded['counts'].decode())


def _write_image(path: Path, image: np.ndarray) -> None:
    if not cv2.imwrite(str(path), image):
        raise DataError(f'image {str(path)!r} cannot be written')
