"""Medical data sets for MMSegmentation: Synapse, ACDC and polyps.

All are read in the form that ``tools/convert_medical.py`` writes; volumes are
folders of slices named ``<case>_slice<number>``.
"""

from typing import ClassVar

from mmengine import fileio
from mmseg.datasets import BaseSegDataset, SynapseDataset

from mmvitcompress.datasets.checks import CheckedPairs
from mmvitcompress.registry import DATASETS

ACDC_CLASSES = (
    'background',
    'right_ventricle',
    'myocardium',
    'left_ventricle',
)


@DATASETS.register_module()
class CheckedSynapseDataset(CheckedPairs, SynapseDataset):
    """mmseg's ``SynapseDataset``, checked for completeness first.

    Args:
        img_suffix: how image names end. Defaults to None: as those in the
            folder do, '.png' or '.jpg'.
        **kwargs: those of ``BaseSegDataset``.
    """

    SOURCE = (
        'Get Synapse multi-organ (https://www.synapse.org/#!Synapse:'
        'syn3193805), convert it by mmseg tools/dataset_converters/'
        'synapse.py, or its slices and volumes as TransUNet gives them away '
        'by tools/convert_medical.py synapse, and set data_root, in the '
        'configs of this project SYNAPSE_ROOT, to the folder with img_dir '
        'and ann_dir'
    )
    LABELS = len(SynapseDataset.METAINFO['classes'])

    def __init__(self, img_suffix: str | None = None, **kwargs):
        super().__init__(img_suffix=img_suffix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """List all pairs, whichever of both formats the images have.

        Raises:
            DataError: see ``CheckedPairs``.
        """
        if self.img_suffix is None:
            self.require_folders()
            names = fileio.list_dir_or_file(
                self.data_prefix['img_path'],
                list_dir=False,
                suffix=('.jpg', '.png'),
                recursive=True,
                backend_args=self.backend_args,
            )
            first = next(iter(names), '.png')
            self.img_suffix = first[first.rindex('.') :]
        return super().load_data_list()


@DATASETS.register_module()
class ACDCDataset(CheckedPairs, BaseSegDataset):
    """Automated Cardiac Diagnosis Challenge: three structures in MRI.

    Bernard et al., Deep learning techniques for automatic MRI cardiac
    multi-structures segmentation and diagnosis, 2018.

    Args:
        img_suffix: how image names end. Defaults to '.png'.
        **kwargs: those of ``BaseSegDataset``.
    """

    METAINFO: ClassVar[dict] = dict(
        classes=ACDC_CLASSES,
        palette=[(0, 0, 0), (255, 127, 14), (44, 160, 44), (214, 39, 40)],
    )
    SOURCE = (
        'Get ACDC (https://www.creatis.insa-lyon.fr/Challenge/acdc), run '
        'tools/convert_medical.py acdc, and set data_root, in the configs of '
        'this project ACDC_ROOT, to the folder that it made'
    )
    LABELS = len(ACDC_CLASSES)

    def __init__(self, img_suffix: str = '.png', **kwargs):
        super().__init__(img_suffix=img_suffix, **kwargs)


@DATASETS.register_module()
class PolypDataset(CheckedPairs, BaseSegDataset):
    """Polyps in colonoscopy images: Kvasir, CVC-ClinicDB, CVC-ColonDB, ETIS.

    Args:
        img_suffix: how image names end. Defaults to '.png'.
        **kwargs: those of ``BaseSegDataset``.
    """

    METAINFO: ClassVar[dict] = dict(
        classes=('background', 'polyp'), palette=[(0, 0, 0), (255, 127, 14)]
    )
    SOURCE = (
        'Get TrainDataset and TestDataset of PraNet '
        '(https://github.com/DengPingFan/PraNet), run '
        'tools/convert_medical.py polyp, and set data_root, in the configs of '
        'this project POLYP_ROOT, to the folder that it made'
    )
    LABELS = 2

    def __init__(self, img_suffix: str = '.png', **kwargs):
        super().__init__(img_suffix=img_suffix, **kwargs)
