"""The classifier's data and metric."""

import pytest
import torch
from PIL import Image

from mmvitcompress.datasets import TimmDataset
from mmvitcompress.errors import ConfigError, DataError
from mmvitcompress.evaluation import TopKAccuracy
from mmvitcompress.models import ImageClassifier

ARCH = dict(embed_dim=24, depth=2, num_heads=3, patch_size=8, img_size=32)


def test_image_folder(tmp_path):
    for name, grey in (('a', 0), ('b', 255)):
        folder = tmp_path / 'train' / name
        folder.mkdir(parents=True)
        Image.new('RGB', (40, 40), (grey,) * 3).save(folder / '0.png')
    data = TimmDataset(str(tmp_path), 'train', transform=dict(input_size=32))
    image, target = data[1]
    assert len(data) == 2 and target == 1
    # white under ImageNet's mean and standard deviation
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    torch.testing.assert_close(image, expected.view(3, 1, 1).expand(3, 32, 32))


def test_missing_images_are_named(tmp_path):
    with pytest.raises(DataError, match=r'no folder .*val'):
        TimmDataset(str(tmp_path), 'val')
    (tmp_path / 'val').mkdir()
    with pytest.raises(
        DataError, match=r'val cannot be opened: Found 0 images'
    ):
        TimmDataset(str(tmp_path), 'val')


def test_top_k_by_hand():
    metric = TopKAccuracy(topk=(1, 2))
    logits = torch.tensor([[3.0, 2, 1], [3, 2, 1], [3, 2, 1], [1, 2, 3]])
    targets = torch.tensor([0, 1, 2, 2])
    metric.process((None, targets), list(logits))
    assert metric.evaluate(4) == {'top1': 50.0, 'top2': 75.0}
    with pytest.raises(ConfigError, match='3 classes, but got 5'):
        TopKAccuracy().process((None, targets), list(logits))
    with pytest.raises(DataError, match=r'0\.\.2, but got 3'):
        metric.process((None, targets + 1), list(logits))


def accuracy(logits, targets, topk=(1,)):
    metric = TopKAccuracy(topk)
    metric.process([None, targets], list(torch.as_tensor(logits)))
    return metric.evaluate(len(targets))


def test_equal_scores_count_as_often_as_chance():
    """By drawing: noise below the difference of scores orders equal ones."""
    torch.manual_seed(0)
    logits = torch.randint(0, 3, (40, 6)).float()
    targets = torch.randint(0, 6, (40,))
    noisy = logits + 0.5 * torch.rand(4000, 40, 6)
    for k in (1, 3):
        found = (noisy.topk(k).indices == targets[:, None]).any(-1)
        drawn = 100 * found.float().mean().item()
        exact = accuracy(logits, targets, (k,))[f'top{k}']
        assert exact == pytest.approx(drawn, abs=0.5)
    # nobody knows anything: one of four
    assert accuracy(torch.zeros(2, 4), [0, 3])['top1'] == 25


@pytest.mark.parametrize('value', ['nan', 'inf', '-inf'])
def test_logits_that_are_not_finite_are_wrong(value):
    row = [float(value)] * 3
    assert accuracy([row, row], [0, 2], (1, 3)) == dict(top1=0, top3=0)
    # the others of the batch are still counted
    assert accuracy([row, [0.0, 1.0, 0.0]], [1, 1])['top1'] == 50


def test_overflow_of_one_class_is_no_hit():
    assert accuracy([[0.0, torch.inf]], [1])['top1'] == 0
    assert accuracy([[1.0, torch.nan]], [0])['top1'] == 0
    # a class that was masked out is just never the best
    assert accuracy([[1.0, -torch.inf]], [0])['top1'] == 100


def test_loss_is_smoothed_cross_entropy():
    model = ImageClassifier(
        dict(type='mmvitcompress.CompressedViT', arch=ARCH),
        num_classes=5,
        label_smoothing=0.1,
    )
    images, targets = torch.randn(3, 3, 32, 32), torch.tensor([0, 4, 2])
    loss = model(images, targets, mode='loss')['loss']
    logits = model(images, mode='predict')
    smooth = torch.full((3, 5), 0.02)
    smooth[range(3), targets] = 0.92
    expected = -(smooth * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
