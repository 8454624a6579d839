"""`GET /v1/sinks`, on a real server."""

from pathlib import Path

from keywarp.client import Client
from tests.server.conftest import Starter
from tests.server.sinks.test_sinks import write_site


def test_sinks_are_listed_without_where_they_lead(start: Starter, tmp_path: Path) -> None:
    site = write_site(
        tmp_path,
        f"""
        [sinks.archive]
        file = "{tmp_path}/archive.ndjson"
        classes = ["red"]

        [sinks.table]
        parquet = "{tmp_path}/table"

        [sinks.alarm]
        webhook = "http://guard:hunter2@127.0.0.1:9/hook?token=hunter2"

        [sinks.bus]
        mqtt = "mqtt://guard:hunter2@127.0.0.1:9"
        """,
    )
    server = start(site=site)
    found = server.http.get("/v1/sinks")
    assert "hunter2" not in found.text
    assert "127.0.0.1" not in found.text
    with Client(server.url) as client:
        sinks = client.sinks()
    assert [(sink.name, sink.kind, sink.events) for sink in sinks] == [
        ("archive", "file", True),
        ("table", "parquet", False),
        ("alarm", "webhook", True),
        ("bus", "mqtt", True),
    ]
    assert sinks[0].classes == ("red",)


def test_a_server_without_a_site_file_has_no_sinks(start: Starter) -> None:
    assert start().http.get("/v1/sinks").json() == []
