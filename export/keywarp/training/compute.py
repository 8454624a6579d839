"""Where training runs: the device, the precision of its arithmetic, and the other processes that share the work.

Started by `torchrun`, each process takes an equal share of every batch and all of them take the same step, so that any
number of processes trains the same networks (the paper's 8 GPUs). So does any number of parts that a process computes
its share in. Live batch norms are the exception: they normalise by what is computed at once.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, Self

import cv2
import torch
from torch import Tensor, distributed, nn

from keywarp.datasets.batches import BatchShare
from keywarp.training.errors import ComputeError

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
CPU = torch.device("cpu")
ALONE = BatchShare()
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """One process's device and share."""

    device: torch.device = CPU
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    share: BatchShare = ALONE

    @property
    def leads(self) -> bool:
        """Whether this process writes and reports."""
        return self.share.rank == 0

    def autocast(self) -> AbstractContextManager[object]:
        """The context that the networks run in."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, DTYPES[self.precision])

    def alone(self) -> Self:
        """Itself, for what one process does.

        Raises:
            ComputeError: There are several.
        """
        if self.share.processes > 1:
            raise ComputeError("only `keywarp train` runs in several processes: start this one without torchrun")
        return self

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Let the others begin when the leading process has ended: it fetches and makes files that all need."""
        alone = self.share.processes == 1
        if not alone and not self.leads:
            distributed.barrier()
        yield
        if not alone and self.leads:
            distributed.barrier()

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every process the mean of all processes' gradients."""
        if self.share.processes == 1:
            return
        parameters = list(parameters)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = self.average(torch.cat([g.flatten() for g in gradients]))
        for parameter, part in zip(parameters, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            parameter.grad = part.view(parameter.shape)

    def average_buffers(self, network: nn.Module) -> None:
        """Give every process the mean of all processes' buffers: a batch norm's running means, of its own share."""
        for buffer in network.buffers():
            if buffer.is_floating_point():
                buffer.copy_(self.average(buffer.clone()))

    def average(self, value: Tensor) -> Tensor:
        """The mean over all processes."""
        if self.share.processes == 1:
            return value
        distributed.all_reduce(value)
        return value / self.share.processes


@contextmanager
def open_compute(device: DeviceName = "auto", precision: Precision = "auto", parts: int = 1) -> Iterator[Compute]:
    """Find the device, and the other processes if `torchrun` started some.

    Args:
        device: `auto` is CUDA if there is one.
        precision: Of the arithmetic; weights are always 32 bits. `auto` is bf16 where the device computes in it, else
            fp32. fp16 scales the loss, and is only for CUDA.
        parts: That a process computes its share of a batch in, one after the other.

    Raises:
        ComputeError: There is no such device, or it can't compute so.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ComputeError("there is no CUDA device here: use --device cpu")
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if precision == "auto":
        precision = "bf16" if _computes_bf16(kind) else "fp32"
    if precision == "fp16" and kind == "cpu":
        raise ComputeError("fp16 is for CUDA devices: use --precision bf16 or fp32")
    processes, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    local = int(os.environ.get("LOCAL_RANK", 0))
    if kind == "cuda":
        if local >= torch.cuda.device_count():
            raise ComputeError(f"process {local} has no GPU of its own: there are {torch.cuda.device_count()}")
        torch.cuda.set_device(local)
    cv2.setNumThreads(1)  # several gain nothing on samples, and are in the way of PyTorch's
    if processes > 1:
        distributed.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        chosen = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
        yield Compute(chosen, precision, BatchShare(rank, processes, parts))
    finally:
        if processes > 1:
            distributed.destroy_process_group()


def _computes_bf16(kind: str) -> bool:
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
