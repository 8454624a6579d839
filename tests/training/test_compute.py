import pytest
import torch

from keywarp.datasets.batches import BatchShare
from keywarp.training.compute import Compute, open_compute
from keywarp.training.errors import ComputeError

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


def test_alone_it_leads() -> None:
    with open_compute("cpu", "fp32") as compute:
        assert compute == Compute(torch.device("cpu"), "fp32", BatchShare(0, 1))
        assert compute.leads
    assert not Compute(share=BatchShare(1, 2)).leads


@no_cuda
def test_without_cuda_auto_is_the_cpu_and_cuda_is_refused() -> None:
    with open_compute() as compute:
        assert compute.device.type == "cpu"
    with pytest.raises(ComputeError, match="there is no CUDA device here: use --device cpu"), open_compute("cuda"):
        pass


def test_fp16_is_not_for_the_cpu() -> None:
    with pytest.raises(ComputeError, match="fp16 is for CUDA"), open_compute("cpu", "fp16"):
        pass


@pytest.mark.parametrize("found", [True, False])
def test_the_cpu_computes_in_bf16_if_it_can(found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keywarp.training.compute._computes_bf16", lambda _: found)
    with open_compute("cpu") as compute:
        assert compute.precision == ("bf16" if found else "fp32")
        with compute.autocast():
            product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if found else torch.float32)


def test_alone_nothing_is_averaged() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    compute = Compute()
    compute.average_gradients([parameter])
    assert parameter.grad is None
    assert torch.equal(compute.average(torch.tensor(3.0)), torch.tensor(3.0))
