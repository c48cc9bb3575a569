"""A frozen model that another one learns from, and is no part of."""

import torch
from torch import nn


class FrozenTeacher:
    """A model that only gives its opinion.

    It is no module, so that a model that holds one doesn't own its
    parameters: they are neither trained, nor saved, nor averaged, and copies
    of the model share them.

    Args:
        model: It is put into evaluation mode, and stays there.
    """

    def __init__(self, model: nn.Module):
        self.model = model.requires_grad_(False).eval()

    def __deepcopy__(self, memo: dict) -> 'FrozenTeacher':
        return self

    @torch.no_grad()
    def __call__(self, *args):
        """What the model says, without gradients."""
        return self.model(*args)


class Taught:
    """A model that may have a teacher; stands before the module's class."""

    _teacher: FrozenTeacher | None = None

    @property
    def teacher(self) -> nn.Module | None:
        """The frozen teacher, which is none of the submodules."""
        return None if self._teacher is None else self._teacher.model

    def _apply(self, fn, recurse: bool = True):
        # the teacher goes where the model goes, though it is no part of it
        if self.teacher is not None:
            self.teacher._apply(fn, recurse)
        return super()._apply(fn, recurse)
