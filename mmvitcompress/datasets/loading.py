"""Loading label maps for MMSegmentation."""

from mmengine import fileio
from mmseg.datasets.transforms import LoadAnnotations

from mmvitcompress.datasets.label_maps import (
    check_labels,
    check_size,
    label_table,
    read_labels,
)
from mmvitcompress.errors import ConfigError
from mmvitcompress.registry import TRANSFORMS


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
