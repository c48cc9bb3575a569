"""What is written of predictions: pictures, index maps, JSON."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mmvitcompress.datasets.palettes import Colour, background_of
from mmvitcompress.errors import DataError
from mmvitcompress.inference.inputs import Frame, Input, open_video
from mmvitcompress.inference.predictor import Predictor
from mmvitcompress.utils.files import replacing, write_json
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
        topk, score_threshold, opacity, overlay: See ``predict``.

    Attributes:
        records: What was written for each input.
    """

    def __init__(
        self,
        out: str | Path,
        predictor: Predictor,
        topk: int,
        score_threshold: float,
        opacity: float,
        overlay: bool,
    ):
        self.out = Path(out)
        self.predictor = predictor
        self.classes = predictor.classes
        self.topk = min(topk, len(self.classes))
        self.score_threshold = score_threshold
        self.opacity = opacity
        self.overlay = overlay
        self.records: list[dict] = []
        self._source: Input | None = None
        self._found: list[dict] = []
        self._video: cv2.VideoWriter | None = None
        self._stack = ExitStack()

    def __enter__(self) -> 'Writer':
        if self.predictor.task == 'segmentation' and self.overlay:
            legend = draw_legend(self.classes, self.predictor.palette)
            write_image(self.out / 'legend.png', legend[..., ::-1])
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self._finish()
        else:
            self._stack.__exit__(kind, error, trace)

    def write(self, frame: Frame, prediction) -> None:
        """Write what was predicted on a frame."""
        if frame.source is not self._source:
            self._finish()
            self._source = frame.source
            self.records.append(dict(input=str(frame.source.path)))
        if self.predictor.task == 'classification':
            self._found.append(dict(top=self._top(prediction)))
        else:
            prediction = prediction.cpu()
            if self.predictor.task == 'segmentation':
                labels = prediction.pred_sem_seg.data[0].numpy()
                self._write_labels(frame, labels)
            else:
                found = self._detections(prediction)
                self._found.append(dict(detections=found))
            if self.overlay:
                self._write_overlay(frame, self._draw(frame.image, prediction))
        if not frame.source.is_video:
            self._finish()

    def _finish(self) -> None:
        """Close what belongs to one input."""
        self._video = None
        self._stack.close()
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

    def _path(self, folder: str, source: Input, suffix: str) -> Path:
        return self.out / folder / (source.name + suffix)

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
            video = _writing(path, rate, picture.shape[1::-1])
            self._video = self._stack.enter_context(video)
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


@contextmanager
def _writing(
    path: Path, rate: float, size: Sequence[int]
) -> Iterator[cv2.VideoWriter]:
    """A video to fill, which is there as a whole or not at all."""
    code = cv2.VideoWriter_fourcc(*'mp4v')
    with replacing(path) as part:
        try:
            name = str(part).encode().decode()
        except UnicodeEncodeError:  # of which OpenCV itself dies
            raise DataError(
                f'video {str(path)!r} cannot be written: OpenCV takes only '
                'names in UTF-8; rename the video or the folder for results'
            ) from None
        video = cv2.VideoWriter(name, code, rate, size)
        try:
            yield video
        finally:
            video.release()
        if not open_video(part).get(cv2.CAP_PROP_FRAME_COUNT):
            raise DataError(
                f'video {str(path)!r} cannot be written; make room or choose '
                'another place'
            )


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
