"""Images over every way in, on a real server."""

import io
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tritonclient.http import InferenceServerClient, InferInput

from keywarp.client import Client
from keywarp.images import decode_image
from keywarp.protocol import Codec, Hello, Result
from tests.server.conftest import Running
from tests.server.media import GREEN, HEIGHT, RED, WIDTH, plain, saved

HALVES = np.concatenate([plain(RED, WIDTH // 2), plain(GREEN, WIDTH // 2)], axis=1)  # red on the left, green right


def turned(form: str) -> bytes:
    """Return an image that is stored on its side, as a phone that is held upright stores it."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees to the right
    options: dict[str, object] = {"lossless": True} if form == "WEBP" else {"quality": 95}
    return saved(Image.fromarray(HALVES).transpose(Image.Transpose.ROTATE_90), form, exif=exif, **options)


def sides(result: Result) -> tuple[str, ...]:
    """Return what is on the left and right, or at the top and bottom."""
    assert result.segmentation is not None
    assert result.segmentation.labels_png is not None
    labels = np.asarray(Image.open(io.BytesIO(b64decode(result.segmentation.labels_png))))
    names = {1: "red", 2: "green"}
    return tuple(names[int(labels[y, x])] for y, x in ((0, 0), (-1, -1)))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_an_image_over_rest_is_turned_upright_unless_the_stream_says_otherwise(server: Running, form: str) -> None:
    for options, size in (({}, (WIDTH, HEIGHT)), ({"upright": False}, (HEIGHT, WIDTH))):
        stream = server.http.post("/v1/streams", json=options).json()["id"]
        result = Result.model_validate_json(server.frame(stream, turned(form)).text)
        assert (result.width, result.height) == size
        assert sides(result) == (("red", "green") if options == {} else ("green", "red"))


def test_an_image_over_a_websocket_is_turned_upright_unless_hello_says_otherwise(server: Running) -> None:
    for upright, size in ((None, (WIDTH, HEIGHT)), (True, (WIDTH, HEIGHT)), (False, (HEIGHT, WIDTH))):
        with server.connect(f"turned-{upright}", Hello(upright=upright)) as stream:
            stream.frame(turned("JPEG"))
            result = stream.result()
        assert (result.width, result.height) == size


def test_a_hello_must_agree_with_its_stream_on_the_orientation(server: Running) -> None:
    server.http.post("/v1/streams", json={"id": "stored", "upright": False})
    with server.connect("stored", Hello(upright=False)) as stream:
        stream.frame(turned("JPEG"))
        assert stream.result().width == HEIGHT
    with server.connect("stored") as stream:
        stream.send(Hello(upright=True))
        assert stream.close_code() == 4400


def test_only_a_container_s_video_can_be_chosen(server: Running) -> None:
    codecs: tuple[Codec, ...] = ("image", "h264")
    for codec in codecs:
        with server.connect(f"chosen-{codec}") as stream:
            stream.send(Hello(codec=codec, video=1))
            assert stream.close_code() == 4400


def test_an_image_over_the_open_inference_protocol_is_turned_upright(server: Running) -> None:
    with InferenceServerClient(server.url.removeprefix("http://")) as triton:
        tensor = InferInput("image", [1], "BYTES").set_data_from_numpy(np.array([turned("JPEG")], dtype=object))
        labels = triton.infer("tiny", [tensor]).as_numpy("labels")
        stored = triton.infer("tiny", [tensor], parameters={"upright": False}).as_numpy("labels")
    assert labels.shape == stored.shape[::-1]
    assert (labels[0, 0], labels[-1, -1]) == (1, 2)


def test_the_python_client_sends_images_upright_or_as_they_are(server: Running, tmp_path: Path) -> None:
    (tmp_path / "turned.png").write_bytes(turned("PNG"))
    with Client(server.url) as client:
        client.create_stream("sdk")
        assert client.infer("sdk", turned("WEBP")).result.width == WIDTH
        [upright] = client.stream(tmp_path)
        [stored] = client.stream(tmp_path, upright=False)
    assert (upright.result.width, stored.result.width) == (WIDTH, HEIGHT)
    assert upright.image is not None
    assert upright.image.shape == (HEIGHT, WIDTH, 3)


def test_the_client_and_the_server_read_images_alike(server: Running, tmp_path: Path) -> None:
    """Send the same files from a folder and over REST: their results are the same."""
    deep = (np.arange(64 * 128, dtype=np.uint32).reshape(64, 128) * 8).astype(np.uint16)
    picture = Image.fromarray(HALVES)
    images = {
        "0.png": saved(Image.fromarray(deep), "PNG"),
        "1.jpg": saved(picture.convert("CMYK"), "JPEG", quality=95),
        "2.png": saved(picture.convert("P"), "PNG"),
        "3.png": saved(picture.convert("RGBA"), "PNG"),
        "4.jpg": saved(picture.convert("L"), "JPEG"),
        "5.webp": turned("WEBP"),
    }
    for name, data in images.items():
        (tmp_path / name).write_bytes(data)
    with Client(server.url) as client:
        sent = list(client.stream(tmp_path, interval=1, quality=100))
        client.create_stream("alike", interval=1)
        posted = [client.infer("alike", data) for data in images.values()]
    for one, other, data in zip(sent, posted, images.values(), strict=True):
        assert one.image is not None
        assert (one.image == decode_image(data)).all()
        assert (one.labels == other.labels).mean() > 0.95


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"\0\0\0\x18ftypheic" + bytes(40), 415, "but HEIC"),
        (b"GIF89a" + bytes(40), 415, "but GIF"),
        (b"<html>", 415, "but HTML"),
        (b"", 415, "no bytes at all"),
        (turned("JPEG")[:-20], 422, "Premature end of JPEG file"),
    ],
)
def test_an_image_that_cant_be_read_says_why(server: Running, body: bytes, status: int, reason: str) -> None:
    stream = server.http.post("/v1/streams", json={}).json()["id"]
    response = server.frame(stream, body)
    assert response.status_code == status
    assert reason in response.json()["detail"]
