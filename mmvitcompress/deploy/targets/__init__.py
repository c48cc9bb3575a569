"""Runtimes that networks are written for, behind one interface."""

from mmvitcompress.deploy.targets.base import Graph, Target, graph_error
from mmvitcompress.deploy.targets.onnx_file import OnnxTarget
from mmvitcompress.deploy.targets.openvino import OpenVinoTarget
from mmvitcompress.deploy.targets.tensorrt import TensorRTTarget
from mmvitcompress.deploy.targets.torch_program import TorchTarget

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        OnnxTarget(),
        OpenVinoTarget(),
        TorchTarget(),
        TensorRTTarget(),
    )
}
"""By the name that ``tools/export.py --target`` takes."""

__all__ = ['TARGETS', 'Graph', 'Target', 'graph_error']
