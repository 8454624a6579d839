"""Options that several of the commands have."""

from typing import Annotated

import typer

from keywarp.choices import DeviceName, PrecisionName

DeviceOption = Annotated[DeviceName, typer.Option(help="Device to compute on. auto is CUDA if there is a CUDA device.")]
PrecisionOption = Annotated[
    PrecisionName,
    typer.Option(help="Precision of the arithmetic. auto is bf16 where the device computes in it, else fp32."),
]
PartsOption = Annotated[
    int,
    typer.Option(min=1, help="Compute every batch in this many parts, one after the other, to save memory."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")]
