"""One process of a training: its device, the precision of its arithmetic, and its share of every batch.

The processes that `torchrun` starts take equal shares of every batch and all take the same step. So any number of
processes trains the same networks (the paper used 8 GPUs), and so does any number of parts that a process divides its
share into. Live batch norms are the exception, because they normalise over the samples that are computed together.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, Self

import cv2
import torch
from torch import Tensor, distributed, nn

from keywarp.choices import DeviceName, PrecisionName
from keywarp.datasets.batches import BatchShare
from keywarp.training.errors import ProcessError

CPU = torch.device("cpu")
WHOLE_BATCH = BatchShare()
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class TrainingProcess:
    """The device, precision and share of this process."""

    device: torch.device = CPU
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    share: BatchShare = WHOLE_BATCH

    @property
    def is_leader(self) -> bool:
        """Whether this is the one process that writes files and reports progress."""
        return self.share.rank == 0

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which the networks run in this precision."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, DTYPES[self.precision])

    def require_single(self) -> Self:
        """Return this process if there is no other.

        Raises:
            ProcessError: If `torchrun` started several processes.
        """
        if self.share.processes > 1:
            raise ProcessError("only `keywarp train` can run in several processes: start this command without torchrun")
        return self

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Run the block in the leader first, because it fetches and makes files that the other processes need too."""
        several = self.share.processes > 1
        if several and not self.is_leader:
            distributed.barrier()
        yield
        if several and self.is_leader:
            distributed.barrier()

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradients by their mean over all processes."""
        if self.share.processes == 1:
            return
        parameters = list(parameters)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = self.average(torch.cat([g.flatten() for g in gradients]))
        for parameter, part in zip(parameters, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            parameter.grad = part.view(parameter.shape)

    def average_buffers(self, network: nn.Module) -> None:
        """Replace the buffers, such as a batch norm's running means, by their mean over all processes."""
        for buffer in network.buffers():
            if buffer.is_floating_point():
                buffer.copy_(self.average(buffer.clone()))

    def average(self, value: Tensor) -> Tensor:
        """Return the mean of a value over all processes."""
        if self.share.processes == 1:
            return value
        distributed.all_reduce(value)
        return value / self.share.processes


@contextmanager
def open_process(
    device: DeviceName = "auto", precision: PrecisionName = "auto", parts: int = 1
) -> Iterator[TrainingProcess]:
    """Choose the device, and connect to the other processes if `torchrun` started several.

    Args:
        device: The device; `auto` is CUDA if there is a CUDA device.
        precision: The precision of the arithmetic; weights always have 32 bits. `auto` is bf16 where the device
            computes in it, else fp32. fp16 scales the loss and is only for CUDA.
        parts: The number of parts that the process divides its share of a batch into, to compute one after the other.

    Raises:
        ProcessError: If there is no such device, or it doesn't support the precision.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ProcessError("there is no CUDA device here: use --device cpu")
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if precision == "auto":
        precision = "bf16" if computes_bf16(kind) else "fp32"
    if precision == "fp16" and kind == "cpu":
        raise ProcessError("fp16 needs a CUDA device: use --precision bf16 or fp32")
    processes, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    local = int(os.environ.get("LOCAL_RANK", 0))
    if kind == "cuda":
        if local >= torch.cuda.device_count():
            raise ProcessError(
                f"process {local} has no GPU of its own: start at most {torch.cuda.device_count()} processes"
            )
        torch.cuda.set_device(local)
    cv2.setNumThreads(1)  # more threads don't load samples faster, and they compete with PyTorch's
    if processes > 1:
        distributed.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        chosen = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
        yield TrainingProcess(chosen, precision, BatchShare(rank, processes, parts))
    finally:
        if processes > 1:
            distributed.destroy_process_group()


def computes_bf16(kind: str) -> bool:
    """Return whether the device computes in bf16 by itself, without emulation.

    Args:
        kind: The device's type, `cpu` or `cuda`.
    """
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
