# mypy: ignore-errors
"""Fuzz the parsers of everything that comes from outside, guided by coverage (atheris).

    python -m tests.fuzz.parsers TARGET FOLDER [-atheris_runs=N ...]
    python -m tests.fuzz.parsers all FOLDER [-atheris_runs=N ...]

FOLDER keeps the inputs that are worth trying again. A crash is an exception that isn't the parser's own. With `all`,
every target runs in a process of its own, in FOLDER/TARGET, and its output goes to FOLDER/TARGET.log.
"""

import contextlib
import os
import struct
import sys
import tempfile
import zlib
from base64 import b64encode
from pathlib import Path
from xml.sax.saxutils import escape

import atheris

with atheris.instrument_imports(include=["keywarp", "PIL"]):  # the client decodes maps with Pillow
    from keywarp.client.errors import ProtocolError
    from keywarp.client.images import MAX_PIXELS, decode_labels, decode_reliability, decode_values
    from keywarp.engines.manifest import DenseSettings, Manifest
    from keywarp.images import FILE_FORMATS, ImageError, decode_animation, decode_image
    from keywarp.importing.errors import ImportingError
    from keywarp.importing.inputs import choose_size, find_image, real_inputs, settle_inputs
    from keywarp.importing.model_file import load_supported
    from keywarp.onvif.discovery import read_answer
    from keywarp.onvif.errors import BadResponseError
    from keywarp.protocol import (
        ClientMessage,
        Dense,
        End,
        FrameHeader,
        FramingError,
        Hello,
        Segmentation,
        ServerMessage,
        WatchMessage,
        pack,
        unpack,
    )
    from keywarp.protocol.addresses import hide_secrets
    from keywarp.server.decode.images import decode_frame
    from keywarp.server.decode.sources import SourceUrl
    from keywarp.server.errors import BadMessageError, FrameRefusedError, KeyFileError, SiteError
    from keywarp.server.routes.tensors import parse_request
    from keywarp.server.security.keys import parse_key
    from keywarp.server.site import read_site
    from keywarp.server.streams.results import encode_dense

import numpy as np
from PIL import Image
from pydantic import ValidationError

from tests.importing.hostile import HOSTILE, many_nodes, network
from tests.server.media import jpeg, saved

FOLDER = Path(tempfile.mkdtemp(prefix="keywarp-fuzz-"))


def framing(data: bytes) -> None:
    header, payload = unpack(data)
    assert unpack(pack(header, bytes(payload))) == (header, payload)


def messages(data: bytes) -> None:
    for kind in (ClientMessage, ServerMessage, WatchMessage):
        try:
            kind.validate_json(data)
        except ValidationError:
            continue


def labels(data: bytes) -> None:
    try:
        decode_labels(Segmentation.model_validate_json(data))
    except ValueError as error:
        if "no masks" not in str(error):  # pydantic's ValidationError is a ValueError, too
            raise


def values(data: bytes) -> None:
    try:
        decode_values(Dense.model_validate_json(data))
    except ValueError as error:
        if "no map" not in str(error):
            raise


def png(data: bytes) -> None:
    """Decode the PNG itself, with right checksums, which mutations never hit."""
    content = b64encode(with_checksums(data)).decode()
    width, height = struct.unpack(">II", data[16:24].ljust(8, b"\0"))
    if 2**20 < width * height <= MAX_PIXELS:
        return  # such maps only take time
    for decode in (
        lambda: decode_reliability(content),
        lambda: decode_values(
            Dense(width=width, height=height, quantity="depth", minimum=0, maximum=1, values_png=content)
        ),
    ):
        with contextlib.suppress(ProtocolError):
            decode()


def with_checksums(data: bytes) -> bytes:
    """Return a PNG whose chunks have the checksums of their contents, as far as it has whole chunks."""
    parts, rest = [data[:8]], data[8:]
    while len(rest) >= 12:
        end = 8 + int.from_bytes(rest[:4], "big")
        parts += [rest[:end], zlib.crc32(rest[4:end]).to_bytes(4, "big")]
        rest = rest[end + 4 :]
    return b"".join(parts) + rest


def infer(data: bytes) -> None:
    length, _, body = data.partition(b"\n")
    parse_request(body, length.decode("latin-1") or None)


def manifest(data: bytes) -> None:
    Manifest.model_validate_json(data)


def site(data: bytes) -> None:
    (FOLDER / "site.toml").write_bytes(data)
    read_site(FOLDER / "site.toml")


def text(data: bytes) -> None:
    line = data.decode("utf-8", "surrogateescape")
    for parse in (parse_key, SourceUrl.parse):
        try:
            str(parse(line))
        except (KeyFileError, BadMessageError):
            continue
    hide_secrets(line)


def probe_answer(data: bytes) -> None:
    sent = escape(data.decode("utf-8", "replace"))
    scopes = f"onvif://www.onvif.org/name/{sent}"
    for message in (data, PROBE_ANSWER.format(scopes=scopes, addresses=sent).encode()):
        with contextlib.suppress(BadResponseError):
            for camera in read_answer(message, "192.0.2.7", frozenset({"a"})):
                assert camera.service.startswith(("http://192.0.2.7", "https://192.0.2.7"))
                assert f"{camera.name}{camera.hardware}{camera.location}{camera.service}".isprintable()


def image(data: bytes) -> None:
    decode_frame(FrameHeader(), memoryview(data), 64 * 64)


def image_file(data: bytes) -> None:
    pixels = decode_image(data, 64 * 64, formats=FILE_FORMATS)
    assert pixels.size <= 3 * 64 * 64
    assert decode_image(data, 64 * 64, formats=FILE_FORMATS, upright=False).size == pixels.size


def animation(data: bytes) -> None:
    for picture in decode_animation(data, 64 * 64):
        assert picture.pixels.size <= 3 * 64 * 64


def model(data: bytes) -> None:
    """Read a model file up to where a runtime takes it, which happens in a process of its own."""
    (FOLDER / "model.onnx").write_bytes(data)
    read = load_supported(FOLDER / "model.onnx")
    image = find_image(real_inputs(read))
    settle_inputs(read, image, *choose_size(image, None, {entry.key: entry.value for entry in read.metadata_props}))


def draw(kind: str, mode: str = "RGB") -> bytes:
    return saved(Image.new(mode, (8, 8)), kind)


def animated(kind: str) -> bytes:
    first, second = (Image.new("RGB", (8, 8), (value,) * 3) for value in (20, 200))
    return saved(first, kind, save_all=True, append_images=[second], duration=40)


def small_models() -> list[bytes]:
    """Return a valid model file, and small ones with something wrong."""
    files = [network().SerializeToString()]
    for number, hostile in enumerate(h for h in HOSTILE if h.write is not many_nodes):
        folder = FOLDER / str(number)
        folder.mkdir()
        content = hostile.write(folder).read_bytes()
        files += [content] if len(content) < 4096 else []
    return files


BUNDLE = Path(__file__).parents[2] / "models" / "street" / "bundle.json"
HELLO = Hello(model="street", interval=3, codec="h264").model_dump_json().encode()
RLE = b'{"width":2,"height":1,"regions":[{"class_id":1,"name":"a","area":0.5,"rle":{"size":[1,2],"counts":[1,1]}}]}'
DENSE = encode_dense(np.array([[0.5, 2]], np.float32), DenseSettings(stride=1)).model_dump_json().encode()
TENSOR = b'{"inputs":[{"name":"frame","shape":[1,1,3],"datatype":"UINT8","parameters":{"binary_data_size":3}}]}'
SITE = b'[streams.a]\nsource = "rtsp://u:p@host:554/x"\nsinks = ["b"]\n[sinks.b]\nfile = "x"\n'
PROBE_ANSWER = (
    "<E><Header><RelatesTo>a</RelatesTo></Header><Body><ProbeMatches><ProbeMatch>"
    "<Scopes>{scopes}</Scopes><XAddrs>{addresses}</XAddrs></ProbeMatch></ProbeMatches></Body></E>"
)
SMALL = jpeg(width=16, height=16)
# By target: its function, the errors that the function may raise, and the inputs to begin with.
TARGETS = {
    "framing": (framing, FramingError, [pack(FrameHeader(id="a", timestamp=1.5), b"payload"), b"\0" * 4]),
    "messages": (messages, ValidationError, [HELLO, End().model_dump_json().encode()]),
    "labels": (labels, (ValidationError, ProtocolError), [RLE]),
    "values": (values, (ValidationError, ProtocolError), [DENSE]),
    "png": (png, (), [draw("PNG", "L"), draw("PNG", "P"), draw("PNG", "I;16")]),
    "infer": (infer, BadMessageError, [b"\n{}", b"%d\n" % len(TENSOR) + TENSOR + b"abc"]),
    "manifest": (manifest, ValidationError, [BUNDLE.read_bytes()]),
    "site": (site, SiteError, [SITE]),
    "text": (text, (), [b"gate stream,metrics " + b"0" * 64, b"rtsp://user:pass@[::1]:554/a?b#c"]),
    "probe_answer": (
        probe_answer,
        (),
        [PROBE_ANSWER.encode(), b"Front%20door", b"http://a:80/b?c https://[fe80::1]/b"],
    ),
    "image": (image, FrameRefusedError, [SMALL, draw("PNG"), draw("WEBP")]),
    "image_file": (image_file, ImageError, [draw(kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM")]),
    "animation": (animation, ImageError, [animated(kind) for kind in ("PNG", "WEBP")]),
    "model": (model, ImportingError, small_models()),
}


def fuzz(target: str, corpus: Path, options: list[str]) -> None:
    """Fuzz one target. This ends the process."""
    parse, known, seeds = TARGETS[target]
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)

    def test(data: bytes) -> None:
        with contextlib.suppress(known):
            parse(data)

    atheris.Setup([sys.argv[0], *options, str(corpus)], test)
    atheris.Fuzz()


def fuzz_all(folder: Path, options: list[str]) -> None:
    """Fuzz every target in a fork of this process, because importing takes longer than a short run."""
    folder.mkdir(parents=True, exist_ok=True)
    for target in TARGETS:
        if not (child := os.fork()):
            log = os.open(folder / f"{target}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            fuzz(target, folder / target, options)
        os.waitpid(child, 0)


def main() -> None:
    target, folder, *options = sys.argv[1:]
    if target == "all":
        fuzz_all(Path(folder), options)
    else:
        fuzz(target, Path(folder), options)


if __name__ == "__main__":
    main()
