"""Medical data sets for MMSegmentation: Synapse, ACDC and polyps.

All are read in the form that ``tools/convert_medical.py`` writes; volumes are
folders of slices named ``<case>_slice<number>``.
"""

from typing import ClassVar

from mmseg.datasets import BaseSegDataset, SynapseDataset

from mmvitcompress.datasets.checks import CheckedPairs
from mmvitcompress.registry import DATASETS


@DATASETS.register_module()
class CheckedSynapseDataset(CheckedPairs, SynapseDataset):
    """mmseg's ``SynapseDataset``, checked for completeness first."""

    SOURCE = (
        'Get Synapse multi-organ (https://www.synapse.org/#!Synapse:'
        'syn3193805), convert it by mmseg tools/dataset_converters/'
        'synapse.py, or its slices and volumes as TransUNet gives them away '
        'by tools/convert_medical.py synapse, and set data_root, in the '
        'configs of this project SYNAPSE_ROOT, to the folder with img_dir '
        'and ann_dir'
    )


@DATASETS.register_module()
class ACDCDataset(CheckedPairs, BaseSegDataset):
    """Automated Cardiac Diagnosis Challenge: three structures in MRI.

    Bernard et al., Deep learning techniques for automatic MRI cardiac
    multi-structures segmentation and diagnosis, 2018.
    """

    METAINFO: ClassVar[dict] = dict(
        classes=(
            *('background', 'right_ventricle', 'myocardium'),
            'left_ventricle',
        ),
        palette=[(0, 0, 0), (255, 127, 14), (44, 160, 44), (214, 39, 40)],
    )
    SOURCE = (
        'Get ACDC (https://www.creatis.insa-lyon.fr/Challenge/acdc), run '
        'tools/convert_medical.py acdc, and set data_root, in the configs of '
        'this project ACDC_ROOT, to the folder that it made'
    )


@DATASETS.register_module()
class PolypDataset(CheckedPairs, BaseSegDataset):
    """Polyps in colonoscopy: Kvasir, CVC-ClinicDB, CVC-ColonDB and ETIS."""

    METAINFO: ClassVar[dict] = dict(
        classes=('background', 'polyp'), palette=[(0, 0, 0), (255, 127, 14)]
    )
    SOURCE = (
        'Get TrainDataset and TestDataset of PraNet '
        '(https://github.com/DengPingFan/PraNet), run '
        'tools/convert_medical.py polyp, and set data_root, in the configs of '
        'this project POLYP_ROOT, to the folder that it made'
    )
