"""Auxiliary losses: who collects them, and that nothing stays behind."""

import pytest
import torch

from mmvitcompress.arch.vit import ViTArch
from mmvitcompress.models.vit import ViT
from mmvitcompress.tokens import losses
from mmvitcompress.tokens.losses import (
    add_losses,
    collect_losses,
    has_losses,
)

ARCH = ViTArch(24, 2, 3, patch_size=4, img_size=16)
SPARSE = ARCH.replace(token_sparsification=dict(layers=(2,)))
IMAGES = torch.randn(2, 3, 16, 16)


def net(arch=SPARSE):
    return ViT(arch, training=arch is SPARSE).train()


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    assert losses._found == []


def test_each_collection_gets_its_own():
    model = net()
    with collect_losses() as outer:
        model(IMAGES)
        before = outer['keep_ratio']
        with collect_losses() as inner:
            model(IMAGES)
        assert [*inner] == ['keep_ratio'] and outer['keep_ratio'] is before
        torch.manual_seed(0)
        model(IMAGES)
    with collect_losses() as again:
        torch.manual_seed(0)
        model(IMAGES)
    total = before + again['keep_ratio']
    torch.testing.assert_close(outer['keep_ratio'], total)
    again['keep_ratio'].backward()  # it has a gradient


def test_what_does_not_train_has_none():
    model, dense = net(), net(ARCH)
    with collect_losses() as found:
        dense(IMAGES)
        with torch.no_grad():
            model(IMAGES)
        model.eval()(IMAGES)
    assert found == {}
    assert has_losses(model) and not has_losses(dense)


def test_a_failure_ends_the_collection():
    with pytest.raises(RuntimeError), collect_losses():
        net()(IMAGES.double())


class Task(torch.nn.Module):
    """Returns losses, as models of OpenMMLab do, or predictions."""

    def __init__(self):
        super().__init__()
        self.backbone = net()

    def forward(self, x, mode='loss'):
        y = self.backbone(x)[0][0]
        return dict(loss=y.mean()) if mode == 'loss' else y


def test_a_model_returns_them_with_its_own():
    model = Task()
    handles = add_losses(model)
    found = model(IMAGES)
    assert [*found] == ['loss_task', 'loss_keep_ratio']
    assert torch.is_tensor(model(IMAGES, 'tensor'))
    with pytest.raises(RuntimeError):
        model(IMAGES.double())
    assert [*model.eval()(IMAGES)] == ['loss']
    for handle in handles:
        handle.remove()
    assert [*model.train()(IMAGES)] == ['loss']


def test_one_graph_holds_them():
    """Forward and backward of a compiled training step, unbroken."""
    torch._dynamo.reset()
    model = net()

    def step(x):
        with collect_losses() as found:
            y = model(x)[0][0]
        return y.mean() + found['keep_ratio']

    torch.manual_seed(0)
    expected = step(IMAGES)
    graph = torch.compile(step, backend='eager', fullgraph=True)
    torch.manual_seed(0)
    torch.testing.assert_close(graph(IMAGES), expected)
