"""Shipping a model: graphs for other runtimes, checked, timed, quantised."""

from mmvitcompress.deploy.network import (
    DYNAMIC,
    PARTS,
    DeployedNetwork,
    GraphSpec,
    export_program,
)
from mmvitcompress.deploy.onnx_export import export_onnx
from mmvitcompress.deploy.onnx_runtime import OnnxNetwork, graph_error
from mmvitcompress.deploy.optimize import optimize_for_inference
from mmvitcompress.deploy.quantization import quantize_int8

__all__ = [
    'DYNAMIC',
    'PARTS',
    'DeployedNetwork',
    'GraphSpec',
    'OnnxNetwork',
    'export_onnx',
    'export_program',
    'graph_error',
    'optimize_for_inference',
    'quantize_int8',
]
