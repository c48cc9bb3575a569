"""Convert Synapse, ACDC or polyp images into the form that mmseg reads.

Layouts that are read:
    acdc     training/patient001/patient001_frame01.nii.gz and …_gt.nii.gz
             (needs nibabel); patient001_frame01.h5 (needs h5py); or
             train/case_001_sliceED_0.npz, valid/…, test/case_002_volume_ED.npz
    synapse  train_npz/case0005_slice000.npz and test_vol_h5/case0001.npy.h5
             (needs h5py), the nine classes of TransUNet. For NIfTI files use
             mmseg's tools/dataset_converters/synapse.py
    polyp    TrainDataset/{image,mask} and TestDataset/<data set>/
             {images,masks}, as PraNet gives them away

Volumes become slices OUT/{img_dir,ann_dir}/<split>/<case>_slice<number>.png;
polyps become OUT/{images,annotations}/{train,test/<data set>}/*.png.

Examples:
    convert_medical.py acdc downloads/ACDC data/acdc
    convert_medical.py polyp downloads/polyp data/polyp
"""

from mmvitcompress.utils import cli


def parse_args():
    parser = cli.parser(__doc__)
    parser.add_argument(
        'dataset',
        choices=('synapse', 'acdc', 'polyp'),
        help='which data set it is',
    )
    parser.add_argument('source', help='folder that it was unpacked to')
    parser.add_argument(
        'out', help='folder to make; it must not exist yet', metavar='OUT'
    )
    parser.add_argument(
        '--partial',
        action='store_true',
        help='convert what is there, where parts of the data set are missing',
    )
    parser.add_argument(
        '--quiet', action='store_true', help='do not report each case'
    )
    cli.add_json(parser, 'write the number of images per split')
    return parser.parse_args()


def main():
    args = parse_args()
    from dataset_converters.medical import (
        convert_polyps,
        convert_volumes,
    )

    def progress(message: str) -> None:
        if not args.quiet:
            print(message, flush=True)

    if args.dataset == 'polyp':
        counts = convert_polyps(args.source, args.out, args.partial, progress)
    else:
        counts = convert_volumes(
            args.dataset, args.source, args.out, args.partial, progress
        )
    total = ', '.join(f'{count} {split}' for split, count in counts.items())
    print(f'{args.out}: {total}')
    if args.json:
        cli.write_json(args.json, counts)


if __name__ == '__main__':
    cli.run(main)
