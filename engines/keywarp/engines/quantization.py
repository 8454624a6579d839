"""The part of a manifest about a precision with graphs of its own, such as int8."""

from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from keywarp.engines.records import Count, GraphFile, Probability, Record

QuantizedPrecision = Literal["int8"]  # a precision with its own graphs
QUANTIZABLE = ("features.onnx", "flow.onnx", "head.onnx")  # graphs that such a precision may replace
Milliseconds = Annotated[float, Field(gt=0, lt=1e6, allow_inf_nan=False)]


def quantized_file(graph: str, precision: str) -> str:
    """Return the name of the file that replaces a graph in a precision, such as `features.int8.onnx`."""
    return f"{Path(graph).stem}.{precision}.onnx"


QUANTIZED_FILES = frozenset(
    quantized_file(graph, precision) for graph in QUANTIZABLE for precision in get_args(QuantizedPrecision)
)


class Measurement(Record):
    """How far results in a precision agree with those in fp32, and what frames cost, on one device."""

    backend: str
    device: str  # for people
    instructions: str  # the processor's instructions for int8, see `keywarp.engines.processor`
    size: tuple[Count, Count]  # height and width of the networks' input, pixels
    key_agreement: Probability  # of key frames
    propagated_agreement: Probability  # of propagated frames, both from key frames in the same precision
    key_ms: Milliseconds  # cost of a key frame, median
    propagated_ms: Milliseconds  # cost of a propagated frame, median
    instead: str  # the fastest other precision there
    instead_key_ms: Milliseconds
    instead_propagated_ms: Milliseconds

    @property
    def agreement(self) -> float:
        """The lesser of the two agreements."""
        return min(self.key_agreement, self.propagated_agreement)


class Quantization(Record):
    """A precision with its own graphs, which replace those of the same name in fp32."""

    source: str = Field(pattern=r"^[0-9a-f]{64}$")  # `Manifest.digest` of the graphs in fp32 that they were made of
    tolerance: Probability  # least agreement with the results in fp32
    measure: str  # what agreement means, for people
    measurements: tuple[Measurement, ...] = Field(min_length=1)  # the first one is that which it was made with
    data: str = ""  # the videos that it was calibrated and measured on, for people
    unquantized: tuple[str, ...] = ()  # layers that stayed in fp32 because they are sensitive, as `graph/layer`
    files: dict[str, GraphFile]  # by name, such as `features.int8.onnx`

    @model_validator(mode="after")
    def _check_agreement(self) -> Self:
        for m in self.measurements:
            if m.agreement < self.tolerance:
                raise ValueError(
                    f"its results agree with those in fp32 to {100 * m.agreement:.2f} % on {m.backend}, less than the "
                    f"tolerance of {100 * self.tolerance:.2f} %: quantise the bundle again (keywarp quantize)"
                )
        return self
