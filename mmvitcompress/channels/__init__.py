"""What happens to channels: consistent dynamic channel pruning (CDCP).

Plain PyTorch that knows nothing of OpenMMLab. A pruning run is
:func:`attach_compactors`, in every step :func:`apply_penalty_` between
backward and the optimizer, every few iterations :func:`select` on
:func:`column_norms` and :func:`set_kept_`, and at last :func:`fold`.
"""

from mmvitcompress.channels.budget import MacBudget
from mmvitcompress.channels.compactors import (
    Kinds,
    apply_penalty_,
    attach_compactors,
    column_norms,
    find_compactors,
    is_compactor,
    kept_channels,
    set_kept_,
    shrink_masked_,
)
from mmvitcompress.channels.convergence import (
    clear_moments_,
    convergence_notice,
    count_unconverged,
    unconverged,
)
from mmvitcompress.channels.folding import (
    fold,
    kept_widths,
    left_widths,
    output_shift,
    pruned_arch,
    relative_difference,
    removable,
    tensors_of,
    without,
)
from mmvitcompress.channels.schedule import ReductionSchedule
from mmvitcompress.channels.selection import (
    SelectionRules,
    select,
)

__all__ = [
    'Kinds',
    'MacBudget',
    'ReductionSchedule',
    'SelectionRules',
    'apply_penalty_',
    'attach_compactors',
    'clear_moments_',
    'column_norms',
    'convergence_notice',
    'count_unconverged',
    'find_compactors',
    'fold',
    'is_compactor',
    'kept_channels',
    'kept_widths',
    'left_widths',
    'output_shift',
    'pruned_arch',
    'relative_difference',
    'removable',
    'select',
    'set_kept_',
    'shrink_masked_',
    'tensors_of',
    'unconverged',
    'without',
]
