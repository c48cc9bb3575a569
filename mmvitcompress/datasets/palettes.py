"""Names and colours (RGB) of the classes, and where the digits come from."""

import colorsys
from collections.abc import Sequence
from itertools import count

Colour = tuple[int, int, int]
# those of Okabe and Ito and of Tol that colour-blind readers tell apart, in
# the order of their use; no white, black or grey, which mark other things
_DISTINCT = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167), (139, 69, 19)),
    *((51, 34, 136), (136, 34, 85), (153, 153, 51)),
)
BACKGROUND = (153, 153, 153)


def background_of(classes: Sequence[str]) -> int | None:
    """The label of the class that is called background, if there is one."""
    names = [name.lower().strip('_ ') for name in classes]
    return names.index('background') if 'background' in names else None


def class_palette(classes: Sequence[str]) -> list[Colour]:
    """A colour (R, G, B) for each class; grey for the background.

    Up to eleven others are told apart by colour-blind readers as well; of
    more, neighbours are as different as can be.
    """
    background = background_of(classes)
    others = len(classes) - (background is not None)
    if others <= len(_DISTINCT):
        colours = iter(_DISTINCT)
    else:
        colours = map(_nth_colour, count())
    return [
        BACKGROUND if label == background else next(colours)
        for label in range(len(classes))
    ]


def _nth_colour(index: int) -> Colour:
    # steps of the golden ratio never come close to where they were
    light = 1.0 if index % 2 else 0.75
    rgb = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.78, light)
    return tuple(round(255 * part) for part in rgb)


# colours of label_colors.txt of the original data set
CAMVID = {
    'sky': (128, 128, 128),
    'building': (128, 0, 0),
    'pole': (192, 192, 128),
    'road': (128, 64, 128),
    'pavement': (0, 0, 192),
    'tree': (128, 128, 0),
    'sign symbol': (192, 128, 128),
    'fence': (64, 64, 128),
    'car': (64, 0, 128),
    'pedestrian': (64, 64, 0),
    'bicyclist': (0, 128, 192),
}

DIGIT_CLASSES = tuple('0123456789')
DIGIT_PALETTE = [  # ten colours that stay apart for most kinds of sight
    *((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40)),
    *((148, 103, 189), (140, 86, 75), (227, 119, 194), (127, 127, 127)),
    *((188, 189, 34), (23, 190, 207)),
]
DIGITS_SOURCE = (
    'Run tools/make_digits.py and set data_root, in the configs of this '
    'project DIGITS_ROOT, to the folder that it made'
)

NUCLEUS_PALETTE = [(44, 160, 44)]
NUCLEI_SOURCE = (
    'Get stage1_train of the 2018 Data Science Bowl '
    '(https://bbbc.broadinstitute.org/BBBC038), put it into COCO form '
    '(train/*.png, annotations/train.json with one category "nucleus"; for '
    'semantic models semantic/train/*.png, 0 or 1), and set data_root, in the '
    'configs of this project NUCLEI_ROOT, to its folder'
)
