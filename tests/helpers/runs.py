"""What runs in one process leave behind."""

from mmengine.utils import ManagerMixin


def forget_runs(kind=ManagerMixin):
    """Forget the loggers and so on that MMEngine keeps by name.

    Runs are named by the second; the default scope is kept in the same way.
    """
    for subclass in kind.__subclasses__():
        for visualizer in subclass._instance_dict.values():
            if hasattr(visualizer, 'close'):
                visualizer.close()  # TensorBoard writes until then
        subclass._instance_dict.clear()
        forget_runs(subclass)
