"""See that images are normalised as the pretrained weights want them."""

import logging

import torch
from mmengine.logging import print_log
from torch import nn

from mmvitcompress.engine.wrappers import unwrapped


def warn_of_normalisation(model: nn.Module) -> None:
    """Warn if a backbone's checkpoint notes another mean or deviation.

    Args:
        model: A segmentor, detector or classifier, maybe wrapped. Nothing is
            said where its checkpoint or its data preprocessor tell nothing.
    """
    model = unwrapped(model)
    noted = getattr(getattr(model, 'backbone', None), 'pretrained_cfg', {})
    images = getattr(model, 'data_preprocessor', None)
    known = hasattr(images, '_enable_normalize')  # else transforms do it
    if not known or not ('mean' in noted and 'std' in noted):
        return
    theirs = {name: [255 * x for x in noted[name]] for name in ('mean', 'std')}
    ours = {
        name: torch.as_tensor(getattr(images, name, default)).flatten()
        for name, default in (('mean', 0.0), ('std', 1.0))
    }
    for name, values in theirs.items():
        wanted = torch.tensor(values)
        # released figures are rounded to a thousandth of the range
        if not ((ours[name].cpu() - wanted).abs() < 0.3).all():
            setting = ', '.join(
                f'{key}={[round(x, 3) for x in value]}'
                for key, value in theirs.items()
            )
            print_log(
                f'data_preprocessor.{name} is {ours[name].tolist()}, but the '
                f"backbone's weights were trained with {values}: set "
                f'{setting} (in the order of its channels), unless training '
                'goes on long enough to get over it',
                'current',
                logging.WARNING,
            )
            return
