"""A bundle's networks in PyTorch, operator by operator."""

import torch

from keywarp.adaptation.errors import OperatorError
from keywarp.adaptation.torch_graph import TorchGraph
from keywarp.commands.engine_bench.footage import Frame
from keywarp.commands.engine_bench.operations import part_shapes
from keywarp.engines import BackendError, Bundle
from keywarp.importing.checks import prepare


class EagerNetwork:
    """The feature network and the head, in fp32 on the CPU."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        """Read the graphs.

        Args:
            bundle: The bundle.
            threads: The number of threads, or 0 to let PyTorch choose.

        Raises:
            BackendError: If a graph has an operator that isn't supported.
        """
        if threads:
            torch.set_num_threads(threads)
        plain = bundle.without_precisions()
        self._image = bundle.manifest.image
        try:
            self._features, self._head = (
                TorchGraph(plain.graph(f"{part}.onnx"), f"{part}.onnx").eval() for part in ("features", "head")
            )
        except OperatorError as error:
            raise BackendError(f"PyTorch can't run it: {error}") from error
        self._between = list(part_shapes(bundle, "head", 64, 64))

    def run(self, frame: Frame) -> dict[str, torch.Tensor]:
        """Return the head's outputs for a frame, uint8 (H, W, 3) in RGB."""
        with torch.inference_mode():
            found = self._features(image=torch.from_numpy(prepare(frame, self._image)))
            outputs: dict[str, torch.Tensor] = self._head(**{name: found[name] for name in self._between})
            return outputs
