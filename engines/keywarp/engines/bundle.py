"""A bundle on disk: its ONNX graphs, and the manifest that describes them and holds their hashes."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
from pydantic import ValidationError

from keywarp.engines.errors import BundleError, MotionError
from keywarp.engines.manifest import MANIFEST, OPTIONAL, Manifest
from keywarp.engines.motion.names import MotionSource
from keywarp.engines.quantization import QUANTIZED_FILES, Quantization, QuantizedPrecision, quantized_file
from keywarp.engines.records import GraphFile
from keywarp.engines.shipped import shipped_bundles
from keywarp.engines.signatures import graph_signature


@dataclass(frozen=True)
class Bundle:
    """A bundle with a valid manifest and files that match their hashes."""

    path: Path
    manifest: Manifest
    # The files' bytes, or None to read them when needed.
    contents: Mapping[str, bytes] | None = field(default=None, repr=False, compare=False)
    precision: QuantizedPrecision | None = None  # whose graphs `graph` returns; None for those in fp32

    @property
    def name(self) -> str:
        """The model's name, which clients use."""
        return self.manifest.name

    @property
    def digest(self) -> str:
        """One SHA-256 (hex) over all graphs in fp32."""
        return self.manifest.digest

    def in_precision(self, precision: str) -> "Bundle":
        """Return the same bundle with the graphs of a precision.

        Args:
            precision: Such as `int8`. The bundle's own graphs serve all precisions for which it has no others.
        """
        return replace(self, precision=precision if precision in self.manifest.precisions else None)

    def without_precisions(self) -> "Bundle":
        """Return the same bundle with its graphs in fp32 only."""
        return replace(self, manifest=self.manifest.model_copy(update={"precisions": {}}), precision=None)

    def check_motion(self, source: MotionSource) -> None:
        """Check that the bundle has what a motion source needs.

        Raises:
            MotionError: If it has no flow network and the source needs one. The message names the sources that it has.
        """
        if source.needs_network and not self.manifest.has_flow_network:
            raise MotionError(
                f"{self.path} has no flow network, which the motion source {source} needs: use one of "
                f"{', '.join(self.manifest.motions)}"
            )

    def graph(self, name: str) -> onnx.ModelProto:
        """Read one graph in the bundle's `precision`, and check its hash, its inputs and its outputs.

        Args:
            name: The graph's name in fp32, such as `features.onnx`.

        Raises:
            BundleError: If the bundle has no such file, or the file changed since the bundle was loaded, isn't ONNX, or
                has other inputs or outputs than docs/bundle.md requires.
        """
        if name not in self.manifest.files:
            raise BundleError(f"{self.path} has no {name}")
        files = self.manifest.all_files
        file = quantized_file(name, self.precision) if self.precision else name
        file = file if file in files else name
        content = _read(self, file)
        try:
            model = onnx.load_model_from_string(content)
        except Exception as error:  # protobuf's errors have no common public base class
            raise BundleError(f"{self.path / file} is not an ONNX graph ({error}): export the bundle again") from error
        interface = (("inputs", model.graph.input), ("outputs", model.graph.output))
        for (kind, found), expected in zip(interface, graph_signature(self.manifest, name), strict=True):
            if {value.name for value in found} != set(expected):
                names = ", ".join(value.name for value in found)
                raise BundleError(
                    f"{self.path / file} should have the {kind} {', '.join(expected)}, but it has {names}"
                )
        return model


def load_bundle(path: str | os.PathLike[str], *, keep: bool = False) -> Bundle:
    """Open a bundle, and check that its files are exactly those that its manifest describes.

    Args:
        path: The bundle's folder, or the name of one that comes with Keywarp: `street` or `street-detect`. A folder of
            that name comes first.
        keep: Whether to keep the files in memory, so that the bundle can be compiled for further sizes even after its
            folder was replaced by another version.

    Raises:
        BundleError: If the folder, the manifest or a graph is missing, the manifest is invalid or of an unknown
            version, or a file's SHA-256 differs. The message names the file and says what to do.
    """
    folder = Path(path)
    if not folder.exists():
        folder = shipped_bundles().get(str(path), folder)
    manifest = read_manifest(folder)
    contents: dict[str, bytes] = {}
    for name, expected in manifest.all_files.items():
        content = _read_checked(folder / name, expected)
        if keep:
            contents[name] = content
    return Bundle(folder, manifest, contents if keep else None)


def read_manifest(folder: Path) -> Manifest:
    """Read and validate `bundle.json` without reading the graphs.

    Raises:
        BundleError: If the file can't be read or is invalid.
    """
    file = folder / MANIFEST
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except OSError as error:
        raise BundleError(f"{folder} is not a bundle: can't read its {MANIFEST} ({error.strerror})") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise BundleError(f"{file} is not a valid manifest: {faults}") from error


def write_bundle(path: Path, graphs: Mapping[str, onnx.ModelProto], **fields: Any) -> Bundle:
    """Write a bundle.

    All files are written under temporary names first, so that an older bundle stays if that fails. Then the manifest is
    replaced last, and removed before: a reader sees either the old bundle, an incomplete one that it refuses, or the
    new one.

    Args:
        path: The folder to write to, which is created if it is missing.
        graphs: All graphs, by file name (`features.onnx`, ...). Only `flow.onnx` may be missing.
        **fields: The fields of the manifest, without `files`.

    Raises:
        pydantic.ValidationError: If the fields don't make a valid manifest. Nothing is written then.
        OSError: If the folder can't be written to. An older bundle in it stays as it was.
    """
    return save_bundle(make_bundle(path, graphs, **fields))


def make_bundle(path: Path, graphs: Mapping[str, onnx.ModelProto], **fields: Any) -> Bundle:
    """Make a bundle in memory.

    Args:
        path: The folder that `save_bundle` is to write to. Until then it only names the bundle in errors.
        graphs: See `write_bundle`.
        **fields: See `write_bundle`.

    Raises:
        pydantic.ValidationError: If the fields don't make a valid manifest.
    """
    contents = {name: graph.SerializeToString() for name, graph in graphs.items()}
    return Bundle(path, Manifest(files=_describe(contents), **fields), contents)


def draft_precision(bundle: Bundle, precision: QuantizedPrecision, graphs: Mapping[str, onnx.ModelProto]) -> Bundle:
    """Return a bundle in memory with graphs in a precision that weren't measured yet. It can be run, but not written.

    Args:
        bundle: The bundle that they were made of.
        precision: The precision.
        graphs: The graphs in this precision, by the names of those that they replace.
    """
    contents = {quantized_file(graph, precision): model.SerializeToString() for graph, model in graphs.items()}
    manifest = bundle.manifest
    record = Quantization.model_construct(
        source=manifest.digest, tolerance=0.0, measure="", measurements=(), files=_describe(contents)
    )
    kept = {file: _read(bundle, file) for file in manifest.files}
    return Bundle(bundle.path, manifest.model_copy(update={"precisions": {precision: record}}), kept | contents)


def add_precision(
    bundle: Bundle,
    precision: QuantizedPrecision,
    graphs: Mapping[str, onnx.ModelProto],
    path: Path | None = None,
    *,
    name: str | None = None,
    **fields: Any,
) -> Bundle:
    """Return a bundle in memory that also has graphs in a precision, in place of those that it may have had.

    Args:
        bundle: The bundle that they were made of.
        precision: The precision.
        graphs: The graphs in this precision, by the names of those that they replace.
        path: The folder that `save_bundle` is to write to, or None for the bundle's own.
        name: The new bundle's name, or None for the same one.
        **fields: The fields of its `Quantization`, without `source` and `files`.

    Raises:
        pydantic.ValidationError: If the fields don't make a valid manifest, for instance because the agreement is below
            the tolerance.
    """
    draft = draft_precision(bundle, precision, graphs)
    record = {"source": draft.manifest.digest, "files": draft.manifest.precisions[precision].files, **fields}
    values = bundle.manifest.model_dump(exclude={"precisions", "schema_version"})
    values["name"] = name or bundle.name
    return Bundle(path or bundle.path, Manifest(**values, precisions={precision: record}), draft.contents)


def save_bundle(bundle: Bundle) -> Bundle:
    """Write a bundle from memory to its folder, like `write_bundle`."""
    assert bundle.contents is not None
    path = bundle.path
    # Without the field if it is empty, for readers that don't know it yet.
    manifest = bundle.manifest.model_dump_json(indent=2, exclude=None if bundle.manifest.precisions else {"precisions"})
    contents = {**bundle.contents, MANIFEST: (manifest + "\n").encode()}
    path.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=path, prefix=".unfinished-") as folder:
            for name, content in contents.items():
                (Path(folder) / name).write_bytes(content)
            (path / MANIFEST).unlink(missing_ok=True)
            for name in contents:  # the manifest is the last
                (Path(folder) / name).replace(path / name)
            for name in (OPTIONAL | QUANTIZED_FILES) - contents.keys():  # the older bundle's
                (path / name).unlink(missing_ok=True)
    except OSError:
        with contextlib.suppress(OSError):  # it isn't empty
            path.rmdir()
        raise
    return load_bundle(path)


def _describe(contents: Mapping[str, bytes]) -> dict[str, GraphFile]:
    return {name: GraphFile(sha256=hashlib.sha256(c).hexdigest(), size=len(c)) for name, c in contents.items()}


def _read(bundle: Bundle, file: str) -> bytes:
    kept = bundle.contents
    return _read_checked(bundle.path / file, bundle.manifest.all_files[file]) if kept is None else kept[file]


def _read_checked(file: Path, expected: GraphFile) -> bytes:
    """Read a file whose hash must match the manifest."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BundleError(f"can't read {file} ({error.strerror}): copy the bundle again") from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected.sha256:
        raise BundleError(
            f"{file} doesn't match its manifest (its SHA-256 is {found[:12]}..., not {expected.sha256[:12]}...): "
            "it was changed or damaged, so copy the bundle again"
        )
    return content
