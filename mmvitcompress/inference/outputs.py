"""What is written of predictions: pictures, index maps, JSON."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mmvitcompress.datasets.palettes import Colour, background_of
from mmvitcompress.errors import DataError
from mmvitcompress.inference.inputs import Frame, Source, open_video
from mmvitcompress.inference.predictor import Predictor
from mmvitcompress.utils.files import write_json
from mmvitcompress.utils.images import write_image


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
        overlay: Whether to draw over images at all. Defaults to True.
    """

    def __init__(
        self,
        out: str | Path,
        predictor: Predictor,
        topk: int = 5,
        score_threshold: float = 0.3,
        opacity: float = 0.5,
        overlay: bool = True,
    ):
        self.out = Path(out)
        self.predictor = predictor
        self.classes = predictor.classes
        self.topk = min(topk, len(self.classes))
        self.score_threshold = score_threshold
        self.opacity = opacity
        self.overlay = overlay
        self.records: list[dict] = []
        self._source: Source | None = None
        self._found: list[dict] = []
        self._video: cv2.VideoWriter | None = None

    def __enter__(self) -> 'Writer':
        if self.predictor.task == 'segmentation' and self.overlay:
            legend = draw_legend(self.classes, self.predictor.palette)
            write_image(self.out / 'legend.png', legend[..., ::-1])
        return self

    def __exit__(self, kind, *args) -> None:
        if kind is None:
            self._finish()
        elif self._video is not None:
            self._video.release()

    def write(self, frame: Frame, prediction) -> None:
        """Write what was predicted on a frame."""
        if frame.source is not self._source:
            self._finish()
            self._source = frame.source
            self.records.append(dict(input=str(frame.source.path)))
        if self.predictor.task == 'classification':
            self._found.append(dict(top=self._top(prediction)))
            return
        prediction = prediction.cpu()
        if self.predictor.task == 'segmentation':
            self._write_labels(frame, prediction.pred_sem_seg.data[0].numpy())
        else:
            found = self._detections(prediction)
            self._found.append(dict(detections=found))
        if self.overlay:
            self._write_overlay(frame, self._draw(frame.image, prediction))

    def _finish(self) -> None:
        """Close what belongs to one input."""
        if self._video is not None:
            self._video.release()
            self._video = None
        source, found, self._found = self._source, self._found, []
        if not found:
            return
        record = self.records[-1]
        content = dict(frames=found) if source.is_video else found[0]
        if self.predictor.task == 'detection':
            path = self._path('predictions', source, '.json')
            write_json(path, {**record, **content})
            content = dict(detections=str(path))
        record.update(content)

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
        write_image(path, labels.astype(dtype))
        record = self.records[-1]
        record['labels'] = str(path.parent if source.is_video else path)

    def _detections(self, prediction) -> list[dict]:
        """Instances by falling score, of builtin types; others are dropped."""
        found = prediction.pred_instances
        found = found[found.scores.argsort(descending=True, stable=True)]
        prediction.pred_instances = found[found.scores >= self.score_threshold]
        found = self.predictor.inferencer.pred2dict(prediction)
        places = {'box': found.get('bboxes'), 'mask': found.get('masks')}
        return [
            {'label': label, 'class': self.classes[label], 'score': score}
            | {name: each[i] for name, each in places.items() if each}
            for i, (label, score) in enumerate(
                zip(found['labels'], found['scores'])
            )
        ]

    def _write_overlay(self, frame: Frame, picture: np.ndarray) -> None:
        source = frame.source
        suffix = '.mp4' if source.is_video else '.png'
        path = self._path('overlay', source, suffix)
        self.records[-1]['overlay'] = str(path)
        if not source.is_video:
            write_image(path, picture)
            return
        if self._video is None:
            rate = open_video(source.path).get(cv2.CAP_PROP_FPS) or 25.0
            code = cv2.VideoWriter_fourcc(*'mp4v')
            size = picture.shape[1::-1]
            self._video = cv2.VideoWriter(str(path), code, rate, size)
            if not self._video.isOpened():
                raise DataError(f'video {str(path)!r} cannot be written')
        self._video.write(picture)

    def _draw(self, image: np.ndarray, prediction) -> np.ndarray:
        """What was predicted over an image in BGR or grey; in BGR."""
        grey = image.ndim == 2
        turn = cv2.COLOR_GRAY2RGB if grey else cv2.COLOR_BGR2RGB
        rgb = cv2.cvtColor(image, turn)
        if self.predictor.task == 'segmentation':
            labels = prediction.pred_sem_seg.data[0].numpy()
            unpainted = background_of(self.classes)
            palette = self.predictor.palette
            rgb = paint(rgb, labels, palette, self.opacity, unpainted)
        else:
            visualizer = self.predictor.inferencer.visualizer
            visualizer.alpha = self.opacity
            visualizer.add_datasample(
                *('', rgb, prediction), draw_gt=False, pred_score_thr=0.0
            )
            rgb = visualizer.get_image()
        return cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)


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
