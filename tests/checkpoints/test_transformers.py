"""Vision towers of transformers against the same weights here, exactly.

Files are written as the library writes them (under the names of the hub) and
as its modules name their tensors, which differ.
"""

import pytest
import torch
from swins import randomised

from mmvitcompress.checkpoints.convert import convert
from mmvitcompress.models import CompressedViT

transformers = pytest.importorskip(
    'transformers',
    reason='needs requirements/transformers.txt, to compare with',
)
SHAPE = dict(
    hidden_size=128,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=80,
    patch_size=16,
)
HIDDEN = dict(intermediate_size=192)
MODELS = {
    'ViT': HIDDEN,
    'DeiT': HIDDEN,
    'Dinov2': dict(mlp_ratio=3),
    'Dinov2WithRegisters': dict(mlp_ratio=3, num_register_tokens=4),
    'DINOv3ViT': dict(HIDDEN, num_register_tokens=4),
    'DINOv3ViT, gated': dict(
        HIDDEN, use_gated_mlp=True, hidden_act='silu', num_register_tokens=4
    ),
    'Dinov2, gated': dict(mlp_ratio=3, use_swiglu_ffn=True),
    'SiglipVision': HIDDEN,
    'CLIPVision': HIDDEN,
    'Siglip2Vision': dict(HIDDEN, num_patches=25),
}


def theirs(name):
    options = SHAPE | MODELS[name]
    name = name.split(',')[0]
    config = getattr(transformers, f'{name}Config')(**options)
    torch.manual_seed(0)
    model = randomised(getattr(transformers, f'{name}Model')(config))
    with torch.no_grad():
        for parameter in model.parameters():  # sums of two are exact
            parameter.copy_((parameter * 1024).round() / 1024)
    return model


def features(model, x):
    """Tokens of a model of theirs, after its last norm."""
    if type(model).__name__ == 'Siglip2VisionModel':
        # a sequence of patches, each (row, column, channel)
        patches = torch.nn.functional.unfold(x, 16, stride=16)
        patches = patches.unflatten(1, (3, 256)).permute(0, 3, 2, 1)
        shapes = torch.tensor([[5, 5]] * len(x))
        mask = torch.ones(len(x), 25, dtype=torch.long)
        return model(patches.flatten(2), mask, shapes).last_hidden_state
    tokens = model(x).last_hidden_state
    clip = type(model).__name__.startswith('CLIP')  # norms [CLS] only
    return model.post_layernorm(tokens) if clip else tokens


@pytest.mark.parametrize('saved', ['by the library', 'as a state dict'])
@pytest.mark.parametrize('name', MODELS)
def test_towers_are_those_of_transformers(name, saved, tmp_path):
    model = theirs(name)
    path = tmp_path / 'model.safetensors'
    if saved == 'by the library':
        model.save_pretrained(tmp_path)
    else:
        path = tmp_path / 'model.pth'
        torch.save(model.state_dict(), path)
    ours = CompressedViT(
        checkpoint=str(path), final_norm=True, out_type='raw'
    ).eval()
    x = torch.randn(2, 3, 80, 80, dtype=torch.float64)
    with torch.no_grad():
        expected = features(model.double(), x)
        found = ours.double()(x)[-1]
    assert found.shape == expected.shape
    error = (found - expected).abs().max() / expected.abs().max()
    # their rotary tables are in single precision, whatever the model is
    assert error <= (1e-8 if 'DINOv3' in name else 1e-9)


def test_what_pools_is_said_to_be_left(tmp_path):
    theirs('SiglipVision').save_pretrained(tmp_path)
    lines = []
    weights = convert(str(tmp_path / 'model.safetensors'), log=lines.append)
    assert any('attention pool' in line for line in lines)
    assert not any('head' in name for name in weights.tensors)
    assert weights.arch.act == 'gelu_tanh' and not weights.arch.class_token
