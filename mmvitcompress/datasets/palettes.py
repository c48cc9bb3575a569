"""Names and colours (RGB) of the classes, and where the digits come from."""

CAMVID_CLASSES = (
    'sky',
    'building',
    'pole',
    'road',
    'pavement',
    'tree',
    'sign symbol',
    'fence',
    'car',
    'pedestrian',
    'bicyclist',
)
CAMVID_PALETTE = [  # label_colors.txt of the original data set
    (128, 128, 128),
    (128, 0, 0),
    (192, 192, 128),
    (128, 64, 128),
    (0, 0, 192),
    (128, 128, 0),
    (192, 128, 128),
    (64, 64, 128),
    (64, 0, 128),
    (64, 64, 0),
    (0, 128, 192),
]

DIGIT_CLASSES = tuple('0123456789')
DIGIT_PALETTE = [  # ten colours that stay apart for most kinds of sight
    (31, 119, 180),
    (255, 127, 14),
    (44, 160, 44),
    (214, 39, 40),
    (148, 103, 189),
    (140, 86, 75),
    (227, 119, 194),
    (127, 127, 127),
    (188, 189, 34),
    (23, 190, 207),
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
