"""The fake of PyNvVideoCodec has the calls of the real one, which can be imported without a driver."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.server.decode import fake_nvdec as fakes

if TYPE_CHECKING:
    from enum import Enum

pytestmark = [
    pytest.mark.gpu_check,
    pytest.mark.skipif(not find_spec("PyNvVideoCodec"), reason="PyNvVideoCodec isn't installed"),
    pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("nm")), reason="there is no C compiler"),
]

OPEN = """
from keywarp.server.errors import DecoderError
from keywarp.server.decode.nvdec import open_nvdec
try:
    open_nvdec()
except DecoderError as error:
    print(error)
"""


def run(code: str, libraries: Path | None = None) -> str:
    """Run a program, with libraries in place of the driver, and return its output."""
    env = os.environ | {"LD_LIBRARY_PATH": str(libraries or "")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ask(driver: Path, expression: str) -> Any:
    """Evaluate an expression in which `p` is the package."""
    code = f"import json; from operator import attrgetter; import PyNvVideoCodec as p; print(json.dumps({expression}))"
    return json.loads(run(code, driver))


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build libraries with which the package can be imported. Every call reports that there is no device."""
    folder = tmp_path_factory.mktemp("driver")
    spec = find_spec("PyNvVideoCodec")
    assert spec
    assert spec.origin
    [module] = Path(spec.origin).parent.glob("PyNvVideoCodec_130.*.so")
    symbols = subprocess.run(["nm", "-D", "-u", module], capture_output=True, text=True, check=True).stdout.split()
    calls = [symbol for symbol in symbols if symbol.startswith("cu") and "@" not in symbol]
    sources = {
        "libcuda.so.1": "".join(f"int {call}(void) {{ return 100; }}\n" for call in calls),
        "libnvidia-encode.so.1": "int NvEncodeAPIGetMaxSupportedVersion(unsigned *v) { *v = 13 << 4; return 0; }\n",
    }
    for library, source in sources.items():
        arguments = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(folder / library)]
        subprocess.run(arguments, input=source, text=True, check=True)
    return folder


def test_without_a_driver_the_error_names_what_is_missing() -> None:
    printed = run(OPEN)
    assert "libnvidia-encode.so.1: cannot open shared object file" in printed
    assert "is NVIDIA's driver there" in printed
    assert len(printed.splitlines()) == 1


def test_without_a_decoder_the_error_names_what_is_missing(driver: Path) -> None:
    assert run(OPEN, driver).startswith("the GPU's video decoder can't be used: Failed to open dynamic library: cuvid")


def test_the_fake_has_the_names_of_the_package(driver: Path) -> None:
    enums: dict[str, type[Enum]] = {
        "cudaVideoCodec": fakes.Codec,
        "OutputColorType": fakes.Color,
        "DisplayDecodeLatencyType": fakes.Latency,
        "VideoPacketFlag": fakes.Flag,
    }
    members = {f"{name}.{member.name}": member.value for name, enum in enums.items() for member in enum}
    assert ask(driver, f"[int(attrgetter(name)(p)) for name in {[*members]}]") == [*members.values()]
    methods = ["PyNvDecoder.Decode", "DecodedFrame.GetPtrToPlane", "DecodedFrame.getPTS"]
    assert ask(driver, f"[callable(attrgetter(name)(p)) for name in {methods}]") == [True] * 3
    properties = ["DecodedFrame.shape", "DecodedFrame.strides"]
    assert ask(driver, f"[isinstance(attrgetter(name)(p), property) for name in {properties}]") == [True] * 2
    assert (
        ask(driver, "[issubclass(e, Exception) for e in (p.PyNvVCException, p.PyNvVCExceptionUnsupported)]")
        == [True] * 2
    )


def test_the_fake_takes_the_arguments_of_the_package(driver: Path) -> None:
    create = ask(driver, "next(line for line in p.CreateDecoder.__doc__.splitlines() if line.startswith('1. '))")
    caps = ask(driver, "p.GetDecoderCaps.__doc__.splitlines()[0]")
    taken = ("gpuid", "codec", "cudacontext", "cudastream", "usedevicememory", "outputColorType", "latency")
    for argument in taken:
        assert f"{argument}: " in create
    assert all(f"{argument}: " in caps for argument in ("gpuid", "codec"))
    assert caps.endswith("-> Dict[str, int]")


def test_a_unit_is_wrapped_in_a_packet_of_the_package(driver: Path) -> None:
    code = """
import av, ctypes, PyNvVideoCodec
from keywarp.server.decode.nvdec import Nvdec
nvdec = Nvdec(PyNvVideoCodec, ["h264"])
unit = av.Packet(b"a unit")
for packet in nvdec.packet(unit, 7, whole=True), nvdec.packet(unit, 8, whole=False), nvdec.end():
    print(packet.bsl and ctypes.string_at(packet.bsl_data, packet.bsl), packet.pts, packet.decode_flag)
"""
    assert run(code, driver).splitlines() == ["b'a unit' 7 8", "b'a unit' 8 0", "0 0 0"]
