"""The operator's file of a site's cameras and sinks."""

import threading
from pathlib import Path

import pytest

from keywarp.server.errors import SiteError
from keywarp.server.process import Server
from keywarp.server.settings import Settings
from keywarp.server.site import read_site
from tests.server.conftest import Starter, eventually
from tests.server.media import B_FRAMES, mpegts
from tests.server.sinks.test_sinks import sink_count, write_site
from tests.server.source_server import SourceServer, file
from tests.server.test_pulls import until


def test_the_sites_streams_are_pulled_from_the_start_even_without_an_allow_list(start: Starter, tmp_path: Path) -> None:
    with SourceServer() as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        web.responders["/clip.ts"] = file(mpegts(40, B_FRAMES))
        text = f"""
            [streams.gate]
            source = "{web.address}/clip.ts"
            interval = 5
            sinks = ["archive"]

            [sinks.archive]
            file = "{tmp_path}/{{stream}}.ndjson"
        """
        server = start(site=write_site(tmp_path, text))
        ended = until(server, "gate", "ended")
        assert (ended["frames"], ended["key_frames"], ended["sinks"]) == (40, 8, ["archive"])
        eventually(lambda: sink_count(server, "archive", "delivered") == 40)
        web.shutdown()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("streams = 3", "streams"),
        ("[streams.gate]\ninterval = 3", r"streams\.gate\.source"),
        ('[streams.gate]\nsource = "file:///etc/passwd"', "must be a URL in ASCII, with the scheme rtsp"),
        ('[streams."a b"]\nsource = "rtsp://camera/"', "streams"),
        ('[streams.gate]\nsource = "rtsp://camera/"\nsinks = ["x"]', "no sink 'x'"),
        ("[sinks.x]", r"sinks\.x\.file"),
        ('[sinks.x]\nwebhook = "ftp://x"', "webhook"),
        ('[sinks.x]\nmqtt = "mqtt://x"\ntopic = "a/#"', "topic"),
        ('[sinks.x]\nmqtt = "mqtt://u:a#1@x"', "in a password"),
        ("[sinks", "can't be read"),
    ],
)
def test_an_invalid_file_is_refused_with_the_place_of_the_error(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SiteError, match=says):
        read_site(write_site(tmp_path, text))


def test_a_site_stream_that_cannot_be_created_ends_the_server(models: Path, tmp_path: Path) -> None:
    text = '[streams.gate]\nsource = "rtsp://127.0.0.1:1/"\nmodel = "other"'
    server = Server(Settings(models=models, port=0, backend="onnxruntime", site=write_site(tmp_path, text)))
    server.run()
    assert isinstance(server.service.failure, SiteError)
    assert "streams.gate: there is no model 'other'" in str(server.service.failure)
