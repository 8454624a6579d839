"""Put TensorRT 8.5 for Keywarp into a folder: NVIDIA's libraries, and our own one that calls them (docs/gpu.md).

  python docker/tensorrt8.py /opt/tensorrt8
  export KEYWARP_TENSORRT8=/opt/tensorrt8/libkeywarp_tensorrt8.so

It needs g++, pip and a network, but no CUDA toolkit and no GPU. NVIDIA's headers are downloaded for the compilation and
not kept; NVIDIA's terms apply to its libraries, which come from packages for Python 3.10 and work beside any Python.
"""

import argparse
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen
from zipfile import ZipFile

SOURCES = Path(__file__).resolve().parents[1] / "engines" / "keywarp" / "engines" / "cuda"
# Where headers come from: a copy of GitHub's raw files, as the variable says, or GitHub.
SITE = os.environ.get("TENSORRT_HEADERS", "https://raw.githubusercontent.com")
FOLDER = "NVIDIA/TensorRT/b0c259a749aab1486ed3b4458e7176555b003497/include"  # 8.5.3
HEADERS = {
    f"{FOLDER}/NvInfer.h": "b8916a5596dc42058d0b71add9055ab07e20711c56f830e2f07e6ea325893d19",
    f"{FOLDER}/NvInferImpl.h": "a9b22093ddadfc9e32696b5ad54285d3deb8186a170961cfea762cf7d221f1c4",
    f"{FOLDER}/NvInferLegacyDims.h": "608531417b5d1e652f61449a9116c69c7d66399987615b37d4614738ef9df865",
    f"{FOLDER}/NvInferRuntime.h": "8066b330da662825445fe8fb0e42b4f06e0439c80e7508cd6ee91e37ae63c461",
    f"{FOLDER}/NvInferRuntimeCommon.h": "b8547e885379905b965bc1859d6b1e16504c9bca68daa1a79cc6053a4fc93b9d",
    f"{FOLDER}/NvInferVersion.h": "e0e157db038a639dfd9df7f0d240dae700c25a3c5c6fd0827bafb543f5e99a35",
    "onnx/onnx-tensorrt/fdeeaca87ad2eef316aafb016e1822502f383eea/NvOnnxParser.h": (
        "bd075591d9b520084a45b93751256bdaecf04790ce178f0539e28532fdbbf1e2"
    ),
}
# Packages, and which of their libraries are needed. cuDNN's others train, or run recurrent networks.
PACKAGES = {
    "tensorrt==8.5.3.1": ("libnvinfer.", "libnvinfer_builder_resource.", "libnvinfer_plugin.", "libnvonnxparser."),
    "nvidia-cudnn-cu11==8.6.0.163": ("libcudnn.", "libcudnn_ops_infer.", "libcudnn_cnn_infer."),
    "nvidia-cublas-cu11==11.11.3.6": ("libcublas.", "libcublasLt."),
}


def main() -> None:
    """Fill the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--wheels", type=Path, help="a folder that has the packages' wheels already")
    parser.add_argument(
        "--alone",
        action="store_true",
        help="leave out cuDNN and cuBLAS (1.4 GB), which TensorRT needs on Kepler only",
    )
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="keywarp-tensorrt8-") as work:
        headers = fetch_headers(Path(work) / "include")
        unpack(arguments.folder, arguments.wheels or Path(work), alone=arguments.alone)
        if arguments.alone:
            stand_in(arguments.folder, Path(work) / "versions")
        library = build(arguments.folder, headers)
    size = sum(file.stat().st_size for file in arguments.folder.iterdir())
    print(f"{library}: {size / 1e6:.0f} MB of libraries in {arguments.folder}")


def fetch_headers(folder: Path) -> Path:
    """Download the headers into a folder."""
    folder.mkdir()
    for path, expected in HEADERS.items():
        with urlopen(f"{SITE}/{path}", timeout=60) as response:
            content = response.read()
        if hashlib.sha256(content).hexdigest() != expected:
            sys.exit(f"{SITE}/{path} isn't the header of TensorRT 8.5.3")
        (folder / Path(path).name).write_bytes(content)
    return folder


def unpack(folder: Path, wheels: Path, *, alone: bool) -> None:
    """Download the packages, unless they are there, and unpack their libraries."""
    for package, libraries in PACKAGES.items():
        if alone and not package.startswith("tensorrt"):
            continue
        pattern = f"{package.partition('==')[0].replace('-', '_')}-*.whl"
        if not any(wheels.glob(pattern)):
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            subprocess.run([*pip, "--python-version", "3.10", "--dest", str(wheels), package], check=True)
        [wheel] = wheels.glob(pattern)
        with ZipFile(wheel) as archive:
            for name in archive.namelist():
                if Path(name).name.startswith(libraries):
                    with archive.open(name) as source, (folder / Path(name).name).open("wb") as target:
                        while block := source.read(1 << 24):
                            target.write(block)


def stand_in(folder: Path, versions: Path) -> None:
    """Make libraries whose functions fail, since TensorRT's own plugins are linked with cuDNN and cuBLAS."""
    plugins = next(folder.glob("libnvinfer_plugin.so*"))
    missing = subprocess.run(["nm", "-D", "-u", str(plugins)], check=True, capture_output=True, text=True).stdout
    functions: dict[str, set[str]] = {}
    for name, library in re.findall(r" U (cu\w+)@+(\S+)", missing):
        functions.setdefault(library, set()).add(name)
    for library, names in functions.items():
        source = "".join(f"int {name}(void) {{ return 1; }}\n" for name in sorted(names))
        versions.write_text(f"{library} {{ global: *; }};\n")
        link = (f"-Wl,-soname,{library}", f"-Wl,--version-script={versions}", "-o", str(folder / library))
        subprocess.run(["gcc", "-shared", "-fPIC", "-x", "c", "-", *link], input=source, text=True, check=True)


def build(folder: Path, headers: Path) -> Path:
    """Compile our library, which finds the others beside it."""
    library = folder / "libkeywarp_tensorrt8.so"
    warnings = ("-Wall", "-Wextra", "-Werror", "-Wno-deprecated-declarations")
    options = ("-std=c++17", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", *warnings)
    includes = (f"-isystem{headers}", f"-I{SOURCES / 'without_toolkit'}", f"-I{SOURCES}")
    sources = (str(SOURCES / name) for name in ("tensorrt8.cpp", "warp_plugin_v2.cpp"))
    # Old-style paths, which also serve the libraries that NVIDIA's libraries load themselves.
    paths = ("-Wl,--disable-new-dtags", "-Wl,-rpath,$ORIGIN", f"-Wl,-rpath-link,{folder}", "-Wl,-z,defs")
    links = (f"-L{folder}", "-l:libnvinfer.so.8", "-l:libnvonnxparser.so.8", *paths)
    subprocess.run(["g++", *options, *includes, *sources, *links, "-o", str(library)], check=True)
    return library


if __name__ == "__main__":
    main()
