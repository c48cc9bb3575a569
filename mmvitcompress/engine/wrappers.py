"""Models inside of what distributes or averages them."""

from mmengine.model import is_model_wrapper
from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, without the wrappers of distributed runs."""
    while is_model_wrapper(model):
        model = model.module
    return model
