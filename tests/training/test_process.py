import pytest
import torch

from keywarp.datasets.batches import BatchShare
from keywarp.training.errors import ProcessError
from keywarp.training.process import TrainingProcess, open_process

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


def test_a_single_process_is_the_leader() -> None:
    with open_process("cpu", "fp32") as process:
        assert process == TrainingProcess(torch.device("cpu"), "fp32", BatchShare(0, 1))
        assert process.is_leader
    assert not TrainingProcess(share=BatchShare(1, 2)).is_leader


@no_cuda
def test_without_cuda_auto_chooses_the_cpu_and_cuda_is_refused() -> None:
    with open_process() as process:
        assert process.device.type == "cpu"
    with pytest.raises(ProcessError, match="there is no CUDA device here: use --device cpu"), open_process("cuda"):
        pass


def test_fp16_on_the_cpu_is_refused() -> None:
    with (
        pytest.raises(ProcessError, match="fp16 needs a CUDA device: use --precision bf16 or fp32"),
        open_process("cpu", "fp16"),
    ):
        pass


@pytest.mark.parametrize("found", [True, False])
def test_auto_precision_is_bf16_where_the_processor_supports_it(found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keywarp.training.process.computes_bf16", lambda _: found)
    with open_process("cpu") as process:
        assert process.precision == ("bf16" if found else "fp32")
        with process.autocast():
            product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if found else torch.float32)


def test_a_single_process_averages_nothing() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    process = TrainingProcess()
    process.average_gradients([parameter])
    assert parameter.grad is None
    assert torch.equal(process.average(torch.tensor(3.0)), torch.tensor(3.0))
