"""INT8 by static quantisation: ranges from real images, QDQ format."""

import logging
import tempfile
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from torch import Tensor

from mmvitcompress.deploy.targets.base import INPUT, NO_IMAGES
from mmvitcompress.deploy.targets.onnx_runtime import require_packages
from mmvitcompress.errors import ConfigError
from mmvitcompress.utils.files import replacing

# norms, softmax and GELU stay in float: they are cheap and lose most
OPERATORS = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')


def quantize_int8(
    path: str | Path,
    out: str | Path,
    batches: Iterable[Tensor],
    symmetric: bool = False,
) -> None:
    """Quantise the matrix products and convolutions of an ONNX file.

    Weights get a scale per output channel, activations one from the smallest
    to the largest value that the calibration images show. Products of two
    activations (attention) stay in float, and those with stacks of matrices
    (FastUPerHead's taps), which onnxruntime can't run with such scales.

    Args:
        path: The float32 file.
        out: The INT8 file to write.
        batches: Calibration images (B, 3, H, W), as the network takes them.
        symmetric: Whether zero stays zero and biases stay in float, as
            TensorRT wants it; costs a little accuracy. Defaults to False.

    Raises:
        ConfigError: If there are no images.
    """
    require_packages()
    import onnx
    from onnxruntime.quantization import (
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    feeds = ({INPUT: batch.contiguous().numpy()} for batch in batches)
    first = next(feeds, None)
    if first is None:
        raise ConfigError(NO_IMAGES)
    logger = logging.getLogger()
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)  # it advises what is done here
        with (
            tempfile.TemporaryDirectory() as folder,
            replacing(out) as part,
        ):
            prepared = str(Path(folder, 'prepared.onnx'))
            quant_pre_process(str(path), prepared, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                str(part),
                _reader(chain([first], feeds)),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(OPERATORS),
                per_channel=True,
                activation_type=(
                    QuantType.QInt8 if symmetric else QuantType.QUInt8
                ),
                weight_type=QuantType.QInt8,
                nodes_to_exclude=_stacked_products(prepared),
                extra_options={
                    'MatMulConstBOnly': True,
                    'ActivationSymmetric': symmetric,
                    'QuantizeBias': not symmetric,
                },
            )
            model = onnx.load(part)
            source = onnx.load(path, load_external_data=False)
            props = {prop.key: prop.value for prop in source.metadata_props}
            onnx.helper.set_model_props(model, props)
            onnx.save(model, part)
    finally:
        logger.setLevel(level)


def _stacked_products(path: str) -> list[str]:
    """Names of the products with a constant that is no matrix."""
    import onnx

    graph = onnx.load(path).graph
    axes = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type == 'MatMul' and axes.get(node.input[1], 2) != 2
    ]


def _reader(feeds: Iterator[dict]):
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict | None:
            return next(feeds, None)

    return Reader()
