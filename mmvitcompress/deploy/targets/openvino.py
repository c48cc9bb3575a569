"""OpenVINO's own files: converted, run, and quantised by NNCF."""

import logging
from pathlib import Path

import torch
from torch import Tensor

from mmvitcompress.deploy.network import DeployedNetwork, export_program
from mmvitcompress.deploy.targets.base import (
    INPUT,
    METADATA,
    NO_IMAGES,
    Graph,
    Target,
    check_graph,
    metadata,
    require_imports,
)
from mmvitcompress.errors import ConfigError
from mmvitcompress.utils.files import replacing

INSTALL = 'pip install -r requirements/openvino.txt'
HINTS = {'float32': 'f32', 'int8': 'f32', 'bf16': 'bf16'}
"""What OpenVINO may compute in: it would take bfloat16 by itself."""
SUBSET = 300
"""Most images that NNCF calibrates on; all that are given, as a rule."""


class OpenVinoNetwork(Graph):
    """An OpenVINO model (``*.xml`` and ``*.bin``) on the CPU, on as many
    threads as PyTorch.

    Args:
        path: The ``*.xml`` file.
        precision: 'float32', 'bf16', or 'int8' of a quantised file. Defaults
            to 'float32'.

    Raises:
        DependencyError: If openvino is missing.
    """

    def __init__(self, path: str | Path, precision: str = 'float32'):
        require_imports('OpenVINO', ('openvino',), INSTALL)
        import openvino

        core = openvino.Core()
        model = core.read_model(str(path))
        shape = [
            dim.get_length() if dim.is_static else None
            for dim in model.input().partial_shape
        ]
        known = model.has_rt_info([METADATA])
        super().__init__(
            shape, model.get_rt_info([METADATA]).astype(str) if known else None
        )
        settings = {
            'INFERENCE_PRECISION_HINT': HINTS[precision],
            'INFERENCE_NUM_THREADS': torch.get_num_threads(),
            'PERFORMANCE_HINT': 'LATENCY',
        }
        self.compiled = core.compile_model(model, 'CPU', settings)

    def run(self, images: Tensor) -> list[Tensor]:
        """Outputs for images (B, C, H, W)."""
        results = self.compiled(images.contiguous().numpy())
        # the next run writes where these lie
        return [torch.from_numpy(each.copy()) for each in results.values()]


class OpenVinoTarget(Target):
    """OpenVINO's files, by its own converter from a graph of torch."""

    name = 'openvino'
    suffix = '.xml'
    packages = ('openvino',)
    install = INSTALL
    precisions = ('float32', 'bf16', 'int8')

    def write(self, network, path, images=(), **options) -> float:
        """Write ``*.xml`` and, with the weights, ``*.bin``; no options."""
        self.require()
        import openvino

        model = openvino.convert_model(export_program(network))
        model.input().get_tensor().set_names({INPUT})
        _fix_sizes(model, network)
        model.set_rt_info(metadata(network), [METADATA])
        with replacing(path) as part:
            openvino.save_model(model, part, compress_to_fp16=False)
            error = check_graph(
                network, OpenVinoNetwork(part), 'OpenVINO', images
            )
            _move_weights(part, path)
        return error

    def load(self, path, precision='float32') -> Graph:
        """See :class:`OpenVinoNetwork`."""
        return OpenVinoNetwork(path, precision)

    def quantize(self, path, out, batches) -> None:
        """Quantise weights and activations by NNCF's recipe for transformers.

        Weights get a scale per output channel, activations one range each,
        symmetric where they are followed by products. Norms, softmax, GELU
        and the sums of residuals stay in float, as NNCF's patterns for
        transformers have it; biases are corrected for what rounding shifts.
        """
        require_imports('INT8 for OpenVINO', ('openvino', 'nncf'), INSTALL)
        images = [batch.contiguous().numpy() for batch in batches]
        if not images:
            raise ConfigError(NO_IMAGES)
        import nncf
        import openvino

        logging.getLogger('nncf').setLevel(logging.ERROR)
        model = openvino.Core().read_model(str(path))
        quantized = nncf.quantize(
            model,
            nncf.Dataset(images),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=min(len(images), SUBSET),
        )
        if model.has_rt_info([METADATA]):
            meta = model.get_rt_info([METADATA]).astype(str)
            quantized.set_rt_info(meta, [METADATA])
        with replacing(out) as part:
            openvino.save_model(quantized, part, compress_to_fp16=False)
            _move_weights(part, out)


def _fix_sizes(model, network: DeployedNetwork) -> None:
    """Say what does not vary, which the converter need not have seen."""
    sizes = list(network.example(network.spec.batch_size).shape)
    if network.spec.dynamic != 'none':
        sizes[0] = -1
    if network.spec.dynamic == 'size':
        sizes[2:] = -1, -1
    model.reshape(sizes)


def _move_weights(part: Path, path: str | Path) -> None:
    """Weights first: the model that needs them follows."""
    target = Path(path).resolve().with_suffix('.bin')
    part.with_suffix('.bin').replace(target)
