"""Shipping a model: graphs for other runtimes, checked, timed, quantised."""

from mmvitcompress.deploy.network import (
    DYNAMIC,
    PARTS,
    DeployedNetwork,
    GraphSpec,
    export_program,
)
from mmvitcompress.deploy.optimize import optimize_for_inference
from mmvitcompress.deploy.targets import TARGETS, Graph, Target, graph_error
from mmvitcompress.deploy.targets.onnx_file import export_onnx
from mmvitcompress.deploy.targets.onnx_int8 import quantize_int8
from mmvitcompress.deploy.targets.onnx_runtime import OnnxNetwork

__all__ = [
    'DYNAMIC',
    'PARTS',
    'TARGETS',
    'DeployedNetwork',
    'Graph',
    'GraphSpec',
    'OnnxNetwork',
    'Target',
    'export_onnx',
    'export_program',
    'graph_error',
    'optimize_for_inference',
    'quantize_int8',
]
