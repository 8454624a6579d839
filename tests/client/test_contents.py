"""Sources that aren't videos."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from keywarp.client import SourceError, open_source
from keywarp.client.payloads import open_payloads
from tests.videos.films import film, textured
from tests.videos.others import OTHERS

PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\ngone.ts\n#EXT-X-ENDLIST\n"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class _Hasty(_Quiet):
    """Closes the connection after each response, without announcing it. It knows ranges."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        self.wfile.write(data[start:])


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The address at which a web server gives the files of the test's folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_or_address_that_is_no_video_is_said_to_be_what_it_is(tmp_path: Path, web: str, name: str) -> None:
    data, said = OTHERS[name]
    (tmp_path / "v.mp4").write_bytes(data)
    for source in (tmp_path / "v.mp4", f"{web}/v.mp4"):
        with pytest.raises(SourceError, match=said):
            open_source(source)
    for codec in ("h264", "mp4"):
        with pytest.raises(SourceError, match=said):
            open_payloads(tmp_path / "v.mp4", codec)


def test_an_address_says_what_the_web_server_answers(tmp_path: Path, web: str) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "list.m3u8").write_text(PLAYLIST)
    for name, said in (
        ("gone.mp4", r"gone.mp4' can't be opened: the web server responds with status 404"),
        ("empty.mp4", r"empty.mp4' is empty"),
        ("list.m3u8", r"list.m3u8' is a playlist whose parts can't be read"),
    ):
        with pytest.raises(SourceError, match=said):
            open_source(f"{web}/{name}")
    with pytest.raises(SourceError, match="is a playlist whose parts"):
        open_source(tmp_path / "list.m3u8")


# https://github.com/bilibili/ijkplayer/issues/224
@pytest.mark.parametrize("form", ["mp4", "avi"])
def test_a_web_server_may_close_connections_unannounced(tmp_path: Path, form: str) -> None:
    (tmp_path / "v").write_bytes(film(form, [textured(n) for n in range(12)]))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Hasty, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with open_source(f"http://127.0.0.1:{server.server_port}/v") as source:
            assert len(list(source)) == 12
        server.shutdown()
