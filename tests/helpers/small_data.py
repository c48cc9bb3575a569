"""Data sets in miniature, where the configs look for them by default."""

import json

import cv2
import h5py
import numpy as np
from dataset_converters.digits import make_digits
from PIL import Image
from volumes import volume

SHAPE = (64, 96)  # height and width in pixels


def save(path, pixels):
    """Write an image, its folder included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def noise(rng, *shape):
    """A smooth picture (H, W, 3), so that crops of it differ."""
    small = rng.integers(0, 256, (8, 12, 3), np.uint8)
    return cv2.resize(small, (shape or SHAPE)[::-1])


def classes(root, rng):
    """ImageNet: two classes; six images to train on, two to validate."""
    for split, count in (('train', 3), ('val', 1)):
        for target in ('n01440764', 'n01443537'):
            for i in range(count):
                path = root / split / target / f'{i}.JPEG'
                save(path, noise(rng, 64, 64))


def pairs(root, rng, folders, labels, suffix='.jpg', count=2):
    """Images and their maps of so many labels, in pairs of folders."""
    for images, maps in folders:
        for i in range(count):
            save(root / images / f'{i:02}{suffix}', noise(rng))
            coarse = rng.integers(0, labels, (4, 6))
            labelled = coarse.repeat(16, 0).repeat(16, 1)
            save(root / maps / f'{i:02}.png', labelled)


def instances(path, images):
    """A COCO file in which each image holds two squares of one class."""
    height, width = SHAPE
    squares = [
        dict(
            image_id=i,
            id=2 * i + j,
            category_id=1,
            iscrowd=0,
            area=256,
            bbox=[x, 8, 16, 16],
            segmentation=[[x, 8, x + 16, 8, x + 16, 24, x, 24]],
        )
        for i in range(len(images))
        for j, x in enumerate((8, 56))
    ]
    named = [
        dict(id=i, file_name=image.name, height=height, width=width)
        for i, image in enumerate(images)
    ]
    path.parent.mkdir()
    kinds = [dict(id=1, name='nucleus')]
    content = dict(images=named, annotations=squares, categories=kinds)
    path.write_text(json.dumps(content))


def digits(root):
    """The digits, most of them taken away again."""
    make_digits(root, scenes=16)
    for split, count in (('train', 2), ('val', 1)):
        for folder in (root / 'classification' / split).iterdir():
            for path in sorted(folder.iterdir())[count:]:
                path.unlink()


def video(path, rng):
    """Three frames."""
    coding = cv2.VideoWriter_fourcc(*'mp4v')
    writer = cv2.VideoWriter(str(path), coding, 5, SHAPE[::-1])
    for _ in range(3):
        writer.write(noise(rng))
    writer.release()


def downloads(root, rng):
    """One case of each medical data set as it is given away."""
    image, labels = volume(1, (2, 8, 8), high=1.0)
    for name, part in (
        ('train/case_001_sliceED_0', 0),
        ('valid/case_019_sliceED_0', 0),
        ('test/case_002_volume_ED', slice(None)),
        ('train_npz/case0005_slice000', 0),
    ):
        (root / name).parent.mkdir(parents=True)
        np.savez(root / name, image=image[part], label=labels[part])
    (root / 'test_vol_h5').mkdir()
    with h5py.File(root / 'test_vol_h5/case0008.npy.h5', 'w') as file:
        file['image'], file['label'] = image, labels
    sets = ('Kvasir', 'CVC-ClinicDB', 'CVC-ColonDB', 'ETIS-LaribPolypDB')
    for folder, s in (
        ('TrainDataset', ''),
        *((f'TestDataset/{name}', 's') for name in sets),
    ):
        save(root / folder / f'image{s}/1.png', noise(rng, 8, 8))
        save(root / folder / f'mask{s}/1.png', rng.choice([0, 255], (8, 8)))


def make_data(root):
    """Everything that the commands of the documents read.

    Args:
        root: The folder that they are typed in.
    """
    rng, data = np.random.default_rng(0), root / 'data'
    classes(data / 'imagenet', rng)
    for i in range(40):  # some of them are held out by the hash of their names
        target = ('n01443537', 'n01629819')[i % 2]
        path = data / f'tiny_imagenet_20/train/{target}/{i}.JPEG'
        save(path, noise(rng, 64, 64))
    digits(data / 'digits')
    for name, splits, labels in (
        ('ade/ADEChallengeData2016', ('training', 'validation'), 151),
        ('mine', ('train', 'val'), 2),
    ):
        both = [(f'images/{s}', f'annotations/{s}') for s in splits]
        pairs(data / name, rng, both, labels)
    # a fifth of them is held out, by their names
    both = [('train', 'semantic/train')]
    pairs(data / 'nuclei', rng, both, 2, '.png', count=20)
    images = sorted((data / 'nuclei/train').iterdir())
    instances(data / 'nuclei/annotations/train.json', images)
    for name in ('FOLDER/a.png', 'FOLDER/b.png', 'holiday/a.jpg'):
        save(root / name, noise(rng))
    for i in range(20, 32):  # of which 26 is held out, by its name
        save(data / f'images/{i % 2}/{i}.jpg', noise(rng))
    save(root / 'street.jpg', noise(rng))
    video(root / 'ride.mp4', rng)
    downloads(root / 'DOWNLOAD', rng)
