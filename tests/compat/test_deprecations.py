"""What is silenced, and that nothing else is."""

import logging
import warnings

from mmseg.models.builder import build_loss

from mmvitcompress.compat.deprecations import silence_log, silence_warnings


def test_only_named_warnings_are_silenced():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        silence_warnings()
        build_loss(dict(type='mmseg.DiceLoss'))
        warnings.warn('the data are deprecated', stacklevel=1)
        warnings.warn('see build_loss', DeprecationWarning, stacklevel=1)
    messages = [str(warning.message) for warning in seen]
    assert messages == ['the data are deprecated', 'see build_loss']


def test_only_named_lines_leave_the_log(caplog):
    logger = logging.getLogger('a run')
    silence_log(logger)
    logger.warning('"FileClient" will be deprecated in future. Please use io')
    logger.warning('"HardDiskBackend" is the alias of "LocalBackend" a')
    logger.warning('the loss is nan')
    assert [record.message for record in caplog.records] == ['the loss is nan']
