# ACDC cardiac MRI: 3 structures in 100 patients, two volumes each, split as by
# TransUNet and CASCADE: 70 patients to train, 10 to validate, 20 to test.
#
#   DIR/img_dir/{train,val,test}/<case>_slice<number>.png
#   DIR/ann_dir/{train,val,test}/<case>_slice<number>.png  0 = background, 1..3
#
# Made by tools/convert_medical.py acdc.
#
# The data lie elsewhere? Set ACDC_ROOT; docs/usage.md, 'Where data lie'.
_base_ = './synapse.py'  # the pipelines, loaders and metric
dataset_type = 'mmvitcompress.ACDCDataset'
data_root = '{{$ACDC_ROOT:data/acdc}}'
loader = dict(
    batch_size=12,
    dataset=dict(type=dataset_type, data_root=data_root),
)

train_dataloader = loader
val_dataloader = loader
test_dataloader = dict(
    batch_size=12,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='img_dir/test', seg_map_path='ann_dir/test'),
    ),
)
