"""Packs what a machine with a GPU but no network needs for `python -m bench.gpu`, in pieces that travel easily.

Such a machine has Python 3.12, CUDA 13, cuDNN 9 and PyTorch. The pack has ONNX Runtime for CUDA with code for one kind
of GPU only, a few small packages, and the graphs of the paper's networks. With --tensorrt it has TensorRT 8.5 for one
kind of GPU instead, without cuDNN and cuBLAS; KEYWARP_TENSORRT8=FOLDER/tensorrt8/libkeywarp_tensorrt8.so names it then.

  python -m bench.gpu.pack --capability 9.0              into out/gpu-pack
  python3 out/gpu-pack/unpack.py FOLDER                  on the other machine
  PYTHONPATH=FOLDER:export:engines:server:clients/python python3 -m bench.gpu --folder FOLDER/results

Each piece has at most 35 MB.
"""

import argparse
import hashlib
import io
import json
import lzma
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from zipfile import ZipFile

from bench.gpu.fatbins import entries, keep_only

PIECE: Final = 35_000_000  # bytes
PYTHON: Final = "3.12"
RUNTIME: Final = ("onnxruntime-gpu==1.31.1",)
# What ONNX Runtime and the engine need beside what such a machine has.
SMALL: Final = (
    "pydantic",
    "pydantic-core",
    "annotated-types",
    "typing-inspection",
    "typing-extensions",
    "flatbuffers",
    "lapx",
)
TENSORRT: Final = ("tensorrt==8.5.3.1",)
TENSORRT_PYTHON: Final = "3.10"  # the wheel's tag; its libraries work beside any Python
CACHE: Final = Path(".cache", "keywarp", "gpu-pack")
ROOT: Final = Path(__file__).parents[2]
UNPACK: Final = '''"""Unpacks the pieces beside this file: python3 unpack.py FOLDER"""

import hashlib
import io
import json
import lzma
import sys
import tarfile
from pathlib import Path


class Pieces(io.RawIOBase):
    """The pieces as one file."""

    def __init__(self, files):
        self._files = list(files)
        self._open = None

    def readable(self):
        return True

    def readinto(self, buffer):
        while True:
            if self._open is None:
                if not self._files:
                    return 0
                self._open = self._files.pop(0).open("rb")
            count = self._open.readinto(buffer)
            if count:
                return count
            self._open.close()
            self._open = None


here = Path(__file__).resolve().parent
if len(sys.argv) != 2:
    sys.exit(__doc__)
target = Path(sys.argv[1])
pieces = json.loads((here / "pieces.json").read_text())
for name, expected in pieces.items():
    file = here / name
    if not file.is_file():
        sys.exit(f"{name} is missing")
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != expected:
        sys.exit(f"{name} is damaged: copy it again")
target.mkdir(parents=True, exist_ok=True)
whole = io.BufferedReader(Pieces(here / name for name in pieces), 1 << 20)
with lzma.open(whole) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as archive:
    archive.extractall(target, filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(target)
print(f"unpacked into {target}")
'''


def main() -> None:
    """Make a pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=_capability, default="9.0", help="of the GPU (default: 9.0)")
    parser.add_argument("--tensorrt", action="store_true", help="pack the libraries of TensorRT 8.5 instead")
    parser.add_argument(
        "--out", type=Path, help="the folder to write to (default: out/gpu-pack or out/gpu-pack-tensorrt)"
    )
    parser.add_argument("--wheels", type=Path, default=CACHE / "wheels", help="where wheels are downloaded to")
    arguments = parser.parse_args()
    out = arguments.out or Path("out", "gpu-pack-tensorrt" if arguments.tensorrt else "gpu-pack")
    with TemporaryDirectory(prefix="keywarp-pack-") as work:
        site = Path(work)
        if arguments.tensorrt:
            collect_tensorrt(site, arguments.wheels)
        else:
            collect_runtime(site, arguments.wheels)
        for library in sorted(site.rglob("*.so*")):
            slim(library, arguments.capability)
        sizes = write_pieces(site, out)
    for name, size in sizes.items():
        print(f"{size / 1e6:6.1f} MB  {out / name}")
    print(f"{sum(sizes.values()) / 1e6:6.1f} MB in all, for {'.'.join(map(str, arguments.capability))}")


def collect_runtime(site: Path, wheels: Path) -> None:
    """Put ONNX Runtime, small packages and the graphs into a folder."""
    for wheel in download((*RUNTIME, *SMALL), wheels, PYTHON):
        with ZipFile(wheel) as archive:
            archive.extractall(site)
    shutil.rmtree(site / "onnxruntime" / "tools")
    for library in (site / "onnxruntime" / "capi").glob("libonnxruntime.so*"):  # for programs in C
        library.unlink()
    command = [sys.executable, "-m", "bench.gpu", "graphs", "--folder", str(CACHE / "results")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shutil.copytree(CACHE / "results" / "graphs", site / "results" / "graphs")


def collect_tensorrt(site: Path, wheels: Path) -> None:
    """Put TensorRT 8.5 and our library for it into a folder."""
    download(TENSORRT, wheels, TENSORRT_PYTHON)
    command = [
        sys.executable,
        str(ROOT / "docker" / "tensorrt8.py"),
        str(site / "tensorrt8"),
        "--alone",
        "--wheels",
        str(wheels),
    ]
    subprocess.run(command, check=True)


def download(packages: tuple[str, ...], folder: Path, python: str) -> list[Path]:
    """Download wheels of packages for another Python, unless they are there, and return their paths.

    Raises:
        subprocess.CalledProcessError: If pip finds no such wheel.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for package in packages:
        name = package.partition("==")[0].replace("-", "_")
        wheel = next(folder.glob(f"{name}-*.whl"), None)
        if wheel is None:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            pip += ["--constraint", str(ROOT / "constraints.txt"), "--python-version", python]
            subprocess.run([*pip, "--dest", str(folder), package], check=True)
            [wheel] = folder.glob(f"{name}-*.whl")
        found.append(wheel)
    return found


def slim(library: Path, capability: tuple[int, int]) -> None:
    """Blank out a library's code for other GPUs, if it has code for GPUs.

    Raises:
        ValueError: If it has none for this kind.
    """
    content = bytearray(library.read_bytes())
    if next(entries(content), None):
        try:
            keep_only(content, capability)
        except ValueError as error:
            raise ValueError(f"{library.name}: {error}") from error
        library.write_bytes(content)


def write_pieces(site: Path, out: Path) -> dict[str, int]:
    """Write a folder's content as compressed pieces with what unpacks them, and return their sizes in bytes."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    digests: dict[str, str] = {}
    for number, piece in enumerate(_pieces(site)):
        name = f"pack.{number:02}"
        (out / name).write_bytes(piece)
        digests[name] = hashlib.sha256(piece).hexdigest()
    (out / "pieces.json").write_text(json.dumps(digests, indent=1) + "\n", "utf-8")
    (out / "unpack.py").write_text(UNPACK, "utf-8")
    return {name: (out / name).stat().st_size for name in digests}


def _pieces(site: Path) -> Iterator[bytes]:
    """Yield the compressed content of a folder."""
    buffer, compressor = bytearray(), lzma.LZMACompressor(preset=6)

    class _Sink(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: "bytes | bytearray | memoryview", /) -> int:  # type: ignore[override]
            buffer.extend(compressor.compress(bytes(data)))
            return len(data)

    with tarfile.open(fileobj=_Sink(), mode="w|") as archive:
        for file in sorted(site.rglob("*")):
            archive.add(file, str(file.relative_to(site)), recursive=False)
            while len(buffer) >= PIECE:
                yield bytes(buffer[:PIECE])
                del buffer[:PIECE]
    buffer.extend(compressor.flush())
    while buffer:
        yield bytes(buffer[:PIECE])
        del buffer[:PIECE]


def _capability(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    try:
        return int(major), int(minor)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} isn't a compute capability such as 9.0") from None


if __name__ == "__main__":
    main()
