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
from tests.server.source_server import SourceServer, camera, file
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


def test_each_camera_of_the_site_and_no_other_stream_has_metrics(
    start: Starter, tmp_path: Path, web: SourceServer
) -> None:
    hang_up = threading.Event()
    web.responders["/live"] = camera(3, hang_up)
    text = f"""
        [streams.gate]
        source = "{web.address}/live"

        [streams.yard]
        source = "{web.address}/nothing"

        [sinks.archive]
        file = "{tmp_path}/{{stream}}.ndjson"
    """
    server = start(site=write_site(tmp_path, text), allow_pull=("127.0.0.1",))
    server.http.post("/v1/streams", json={"id": "fed"})
    server.http.post("/v1/streams", json={"id": "other", "source": f"{web.address}/live"})
    until(server, "other", "running")
    until(server, "gate", "running")
    until(server, "yard", "retrying")
    lines = server.http.get("/metrics").text.splitlines()
    states = {
        line.partition("{")[2] for line in lines if line.startswith("keywarp_camera_state{") and line.endswith("1.0")
    }
    assert 'camera="gate",state="running"} 1.0' in states
    assert all('camera="gate"' in state or 'camera="yard"' in state for state in states)
    assert len(states) == 2
    ages = {line.partition("}")[0]: float(line.split()[-1]) for line in lines if "_camera_frame_age_seconds{" in line}
    assert len(ages) == 2
    assert all(0 <= age < 60 for age in ages.values())
    assert sink_count(server, "archive", "failed") == 0
    assert any(line.startswith('keywarp_sink_answers_total{outcome="missed",sink="archive"} 0.0') for line in lines)
    hang_up.set()


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
