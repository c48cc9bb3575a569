"""Cut iSAID into crops, by MMSegmentation's converter.

SOURCE/{train,val,test}/images/*.zip hold the images of DOTA-v1.0,
SOURCE/{train,val}/Semantic_masks/*.zip the masks of iSAID. Run by itself, the
converter saves label maps as palette images without a palette, of which
Pillow keeps one bit: each class but the background becomes ship
(https://github.com/open-mmlab/mmsegmentation/issues/1504).
"""

from mmvitcompress.utils import cli


def parse_args():
    parser = cli.parser(__doc__.strip())
    parser.add_argument('source', help='folder with train, val and test')
    parser.add_argument(
        '--out', default='data/iSAID', help='folder to fill', metavar='DIR'
    )
    parser.add_argument(
        '--size', type=int, default=896, help='side of a crop in pixels'
    )
    parser.add_argument(
        '--overlap',
        type=int,
        default=384,
        help='pixels that a crop shares with its neighbour',
    )
    return parser.parse_args()


def main():
    args = parse_args()
    from dataset_converters.isaid import convert

    convert(**vars(args))


if __name__ == '__main__':
    cli.run(main)
