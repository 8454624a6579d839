"""A bundle on disk: four ONNX graphs and the manifest that describes and seals them."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from pydantic import ValidationError

from keywarp.engines.contract import graph_ends
from keywarp.engines.errors import BundleError
from keywarp.engines.manifest import GRAPHS, MANIFEST, GraphFile, Manifest


@dataclass(frozen=True)
class Bundle:
    """A bundle whose manifest is valid and whose files match their hashes."""

    path: Path
    manifest: Manifest
    contents: Mapping[str, bytes] | None = field(default=None, repr=False, compare=False)  # None: read when needed

    @property
    def name(self) -> str:
        """The model's name, as clients ask for it."""
        return self.manifest.name

    @property
    def digest(self) -> str:
        """One SHA-256 (hex) over all graphs: what compiled engines are cached by."""
        files = self.manifest.files
        return hashlib.sha256("".join(files[name].sha256 for name in GRAPHS).encode()).hexdigest()

    def graph(self, name: str) -> onnx.ModelProto:
        """Read one graph, checking its hash once more on the very bytes that are parsed, and its inputs and outputs.

        Args:
            name: A file of the bundle, such as `features.onnx`.

        Raises:
            BundleError: The file changed since the bundle was loaded, isn't ONNX, or has other inputs or outputs than
                the contract says.
        """
        kept = self.contents
        content = _sealed_bytes(self.path / name, self.manifest.files[name]) if kept is None else kept[name]
        try:
            model = onnx.load_model_from_string(content)
        except Exception as error:  # protobuf's own errors have no common public base
            raise BundleError(f"{self.path / name} is not an ONNX graph: {error}") from error
        ends = (("inputs", model.graph.input), ("outputs", model.graph.output))
        for (kind, found), expected in zip(ends, graph_ends(self.manifest, name), strict=True):
            if {value.name for value in found} != set(expected):
                names = ", ".join(value.name for value in found)
                raise BundleError(f"{self.path / name} should have the {kind} {', '.join(expected)}; it has {names}")
        return model


def load_bundle(path: str | os.PathLike[str], *, keep: bool = False) -> Bundle:
    """Open a bundle, refusing anything that isn't exactly what its manifest says.

    Args:
        path: The bundle's folder.
        keep: Keep the files in memory, so that the bundle can be compiled for further sizes when its folder holds
            another version by then.

    Raises:
        BundleError: The folder, manifest or a graph is missing; the manifest is invalid or of an unknown version; or a
            file's size or SHA-256 differs. The message names the file and what to do.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    contents: dict[str, bytes] = {}
    for name, seal in manifest.files.items():
        content = _sealed_bytes(folder / name, seal)
        if keep:
            contents[name] = content
    return Bundle(folder, manifest, contents if keep else None)


def read_manifest(folder: Path) -> Manifest:
    """Read and validate `bundle.json` without looking at the graphs.

    Raises:
        BundleError: There is none, or it is invalid.
    """
    file = folder / MANIFEST
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except OSError as error:
        raise BundleError(f"{folder} is not a bundle: can't read {MANIFEST} ({error.strerror})") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise BundleError(f"{file} is not a valid manifest: {faults}") from error


def write_bundle(path: Path, graphs: Mapping[str, onnx.ModelProto], **fields: Any) -> Bundle:
    """Write a bundle so that a reader sees either the old one, a refusable half, or the new one: manifest last.

    Args:
        path: The folder to write to; made if missing.
        graphs: File name (`features.onnx`, ...) -> graph, all four.
        **fields: The manifest's fields, without `files`.

    Raises:
        pydantic.ValidationError: The fields don't make a valid manifest (nothing is written then).
    """
    contents = {name: graph.SerializeToString() for name, graph in graphs.items()}
    files = {name: GraphFile(sha256=hashlib.sha256(c).hexdigest(), size=len(c)) for name, c in contents.items()}
    manifest = Manifest(files=files, **fields)
    path.mkdir(parents=True, exist_ok=True)
    (path / MANIFEST).unlink(missing_ok=True)
    for name, content in contents.items():
        (path / name).write_bytes(content)
    (path / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
    return load_bundle(path)


def _sealed_bytes(file: Path, seal: GraphFile) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BundleError(f"can't read {file} ({error.strerror}): copy the bundle again") from error
    found = hashlib.sha256(content).hexdigest()
    if found != seal.sha256:
        raise BundleError(
            f"{file} doesn't match its manifest: SHA-256 is {found[:12]}..., not {seal.sha256[:12]}...; "
            "the file was changed or damaged: copy the bundle again"
        )
    return content
