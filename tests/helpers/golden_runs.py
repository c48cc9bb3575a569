"""What a small model is and computes, as a few figures that can be kept.

Weights and images are made of whole numbers by a formula, so that they are
the same on every machine and with every version of torch.
"""

import json
import zlib

import numpy as np
import torch

SIZES = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
CONVENTIONS = ('fvcore', 'matmul')


# -- weights and images -----------------------------------------------------


def noise(name, shape):
    """Numbers in [-1, 1) that depend on a name and their index only."""
    count = int(np.prod(shape, dtype=np.int64))
    x = np.arange(count, dtype=np.uint32) + np.uint32(
        zlib.crc32(name.encode())
    )
    # MurmurHash3's last step: neighbours have nothing in common
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x ^= x >> np.uint32(shift)
        x *= np.uint32(factor)
    x ^= x >> np.uint32(16)
    return (x / 2.0**31 - 1).reshape(shape)


def value(name, shape):
    """Values of a parameter or buffer that keep activations at scale 1."""
    x = noise(name, shape)
    kind = name.rpartition('.')[2]
    if '.compactors.' in f'.{name}':
        return np.eye(shape[-1]) + 0.1 * x  # something else than nothing
    if kind.endswith(('token', 'pos_embed', 'position_bias_table')):
        return 0.5 * x
    if kind in ('bias', 'running_mean'):
        return 0.1 * x
    if len(shape) < 2:  # of norms and scales; variances are positive
        return 1 + 0.3 * x
    return x * (3 * shape[0] / x.size) ** 0.5


@torch.no_grad()
def fill(model):
    """Give a model weights in float64, in place."""
    model.double()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(value(name, tuple(tensor.shape))))
    return model


def picture(batch, size):
    """Images (batch, 3, H, W), smooth with some noise."""
    rows, columns = (np.arange(side) / 16 for side in size)
    x = np.sin(rows[:, None]) * np.cos(1.7 * columns)
    phases = np.arange(batch * 3).reshape(batch, 3, 1, 1)
    x = np.sin(x + rows[:, None] + phases)
    return torch.from_numpy(x + 0.5 * noise('image', x.shape))


# -- what there is ----------------------------------------------------------


def state(model):
    """The state dict: shapes by name, in its order."""
    parameters = dict(model.named_parameters())
    shapes = {}
    for name, tensor in model.state_dict().items():
        shape = 'x'.join(map(str, tensor.shape)) or 'scalar'
        if name not in parameters:
            shape += ' buffer'
        elif not parameters[name].requires_grad:
            shape += ' frozen'
        shapes[name] = shape
    return shapes


def figures(model, size):
    """The arch, and what it says to cost: [backbone, classifier]."""
    arch = getattr(getattr(model, 'backbone', model), 'arch', None)
    if arch is None:
        return {}
    macs = {
        convention: [
            arch.macs(size, num_classes=n, convention=convention)
            for n in (0, 10)
        ]
        for convention in CONVENTIONS
    }
    params = [arch.params(num_classes=n) for n in (0, 10)]
    content = json.loads(json.dumps(arch.to_dict()))
    content = {k: v for k, v in content.items() if v is not None}
    return dict(arch=content, macs=macs, params=params)


# -- what it computes -------------------------------------------------------


def tensors(outputs, name=''):
    """All tensors in nested outputs, by where they are."""
    if isinstance(outputs, torch.Tensor):
        return {name or 'output': outputs}
    items = outputs.items() if isinstance(outputs, dict) else None
    found = {}
    for key, part in items or enumerate(outputs):
        found |= tensors(part, f'{name}.{key}' if name else str(key))
    return found


def probe(tensor):
    """A direction (n) of length about √n in which changes are seen."""
    return torch.from_numpy(np.cos(np.arange(tensor.numel())))


def scalars(tensor):
    """Shape, mean, deviation, a projection and three values of a tensor."""
    flat = tensor.detach().flatten()
    assert flat.dtype == torch.float64
    size = flat.numel()
    values = [
        flat.mean(),
        flat.std(correction=0),
        (flat @ probe(flat)) / size**0.5,
        flat[0],
        flat[size // 3],
        flat[-1],
    ]
    return [list(tensor.shape), *(value.item() for value in values)]


def samples(model, images):
    """Empty data samples for a model of mmdet or mmseg."""
    size = tuple(images.shape[-2:])
    metainfo = dict.fromkeys(SIZES, size) | dict(scale_factor=(1.0, 1.0))
    if hasattr(model, 'decode_head'):
        from mmseg.structures import SegDataSample as Sample
    else:
        from mmdet.structures import DetDataSample as Sample
    return [Sample(metainfo=dict(metainfo)) for _ in images]


def run(model, images):
    """What is to be compared: maps on the way, and raw outputs."""
    if not hasattr(model, 'backbone') or not hasattr(model, 'extract_feat'):
        return dict(output=model(images))
    maps = model.extract_feat(images)
    if hasattr(model, 'rpn_head'):
        # boxes are sorted and selected: outputs before that, and RoI heads
        # on the whole image
        head = model.roi_head
        height, width = images.shape[-2:]
        roi = images.new_tensor([[0, 0, 0, width, height]])
        stages = range(getattr(head, 'num_stages', 0)) or [None]
        regions = [
            part
            for stage in stages
            for kind in ('bbox', 'mask')
            for part in [_region(head, kind, stage, maps, roi)]
        ]
        return dict(maps=maps, rpn=model.rpn_head(maps), regions=regions)
    if hasattr(model, 'panoptic_head'):
        outputs = model.panoptic_head(maps, samples(model, images))
        return dict(maps=maps, output=outputs)
    if hasattr(model.decode_head, 'num_queries'):
        outputs = model.decode_head(maps, samples(model, images))
    else:
        outputs = model(images, None, mode='tensor')
    found = dict(maps=maps, output=outputs)
    if getattr(model, 'auxiliary_head', None) is not None:
        found['auxiliary'] = model.auxiliary_head(maps)
    return found


def _region(head, kind, stage, maps, roi):
    given = () if stage is None else (stage,)
    outputs = getattr(head, f'_{kind}_forward')(*given, maps, roi)
    names = ('cls_score', 'bbox_pred', 'mask_preds')
    return {name: outputs[name] for name in names if name in outputs}


def computed(model, batch, size, train=False):
    """Scalars of each output; when training, of all gradients as well."""
    fill(model).train(train)
    images = picture(batch, size)
    with torch.set_grad_enabled(train):
        outputs = tensors(run(model, images))
    result = {name: scalars(tensor) for name, tensor in outputs.items()}
    if train:
        loss = sum(x.flatten() @ probe(x) for x in outputs.values())
        loss.backward()
        gradients = [
            parameter.grad.flatten()
            for _, parameter in sorted(model.named_parameters())
            if parameter.grad is not None
        ]
        result['gradients'] = scalars(torch.cat(gradients))
        norms = {n: b for n, b in model.named_buffers() if 'running' in n}
        result |= {name: scalars(buffer) for name, buffer in norms.items()}
    return result
