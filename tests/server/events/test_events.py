"""Events of real streams: kept, listed, and delivered to a file, a web server and a broker."""

import asyncio
import base64
import hashlib
import hmac
import io
import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from keywarp.client import Client
from keywarp.protocol import Hello
from keywarp.protocol.events import Event, Rules
from keywarp.server.errors import EventStoreError, SiteError
from keywarp.server.events.backlog import Backlog
from keywarp.server.events.steady_clock import SteadyClock
from keywarp.server.events.store import SWEEP_EVERY, EventQuery, EventStore
from keywarp.server.events.watcher import Report, Watcher
from keywarp.server.process import Server
from keywarp.server.settings import Settings
from tests.server.clock import Clock
from tests.server.conftest import Running, Starter, eventually
from tests.server.media import B_FRAMES, GREEN, RED, encode, jpeg, plain
from tests.server.sinks.test_sinks import Hook, broker, free_port, hasty, hook, lines, write_site  # noqa: F401
from tests.server.source_server import SourceHandler, SourceServer, file
from tests.server.test_pulls import until
from tests.tiny_bundle import tiny_bundle

LEFT = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]
RULES: dict[str, Any] = {
    "title": "Front gate",
    "zones": {"left": LEFT},
    "rules": {"red": {"classes": ["red"], "zone": "left"}},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    tiny_bundle(path / "detector", name="detector", detection=True)
    tiny_bundle(path / "tiny")
    return path


def feed(server: Running, stream: str = "door", frames: str = "grrrrggggg", step: float = 1.0) -> None:
    """Send red and green frames to a stream, `step` seconds from each other."""
    with server.connect(stream, None) as talk:
        talk.send(Hello())
        talk.receive()
        for i, color in enumerate(frames):
            talk.frame(jpeg(RED if color == "r" else GREEN), i, step * i)
            talk.result()


def watched(server: Running, rules: dict[str, Any] = RULES, model: str = "detector") -> None:
    assert server.http.post("/v1/streams", json={"id": "door", "model": model, "interval": 2}).is_success
    put = server.http.put("/v1/streams/door/rules", json=rules)
    assert put.is_success, put.text


def test_an_event_is_listed_with_its_times_objects_and_snapshot(start: Starter) -> None:
    server, began = start(), datetime.now(UTC)
    watched(server)
    info = server.http.get("/v1/streams/door").json()
    assert (info["title"], info["rules"], info["track"]) == ("Front gate", ["red"], True)
    assert server.http.get("/v1/streams/door/rules").json()["zones"]["left"][1] == [0.5, 0.0]
    feed(server)
    [event] = [Event.model_validate(one) for one in server.http.get("/v1/events").json()]
    assert (event.stream, event.camera, event.rule, event.state) == ("door", "Front gate", "red", "ended")
    assert (event.classes, event.zone, event.count) == (("red",), "left", 16)  # of 4 x 8 cells
    assert len(event.objects) == 16
    assert event.frame == 3  # frame 1 is propagated from a green one, and only the second red one gives ids
    assert event.end
    assert began <= event.start <= event.end <= datetime.now(UTC)
    assert server.http.get(f"/v1/events/{event.id}").json()["id"] == event.id
    snapshot = server.http.get(event.snapshot or "")
    assert snapshot.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(snapshot.content)).size == (128, 64)
    for query, count in (("stream=door", 1), ("rule=blue", 0), ("until=2020-01-01T00:00:00Z", 0)):
        assert len(server.http.get(f"/v1/events?{query}").json()) == count
    assert 'keywarp_events_total{rule="red",state="ended"} 1.0' in server.http.get("/metrics").text
    assert server.http.get("/v1/events/none").status_code == 404
    assert server.http.get("/v1/events/none/snapshot").status_code == 404


def test_a_segmentation_is_watched_by_area(start: Starter) -> None:
    server = start()
    watched(server, {"rules": {"red": {"classes": ["red"], "min_area": 0.5}}}, model="tiny")
    feed(server)
    [event] = server.http.get("/v1/events").json()
    assert (event["classes"], event["area"], event["objects"]) == (["red"], 1.0, [])


def test_an_open_event_ends_with_its_stream_and_with_its_rules(start: Starter) -> None:
    server = start()
    for method, path in (("PUT", "/v1/streams/door/rules"), ("DELETE", "/v1/streams/door")):
        if server.http.get("/v1/streams/door").is_success:
            server.http.delete("/v1/streams/door")
        watched(server)
        feed(server, frames="rrr")
        assert server.http.get("/v1/events").json()[0]["state"] == "started"
        assert server.http.request(method, path, json={}).is_success
        assert server.http.get("/v1/events").json()[0]["state"] == "ended"


def test_an_open_event_ends_when_the_producer_comes_again(start: Starter) -> None:
    server = start()
    watched(server)
    feed(server, frames="rrr")
    feed(server, frames="g")
    assert server.http.get("/v1/events").json()[0]["state"] == "ended"


def test_an_event_never_ends_before_its_start_though_the_clock_is_set_back(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours, see = iter(range(100)), Watcher.see

    def earlier(self: Watcher, pixels: Any, found: Any, timestamp: float | None, time: Any) -> list[Report]:
        return see(self, pixels, found, timestamp, time - timedelta(hours=next(hours)))

    monkeypatch.setattr(Watcher, "see", earlier)
    server = start()
    watched(server)
    feed(server)
    [event] = [Event.model_validate(one) for one in server.http.get("/v1/events").json()]
    assert event.state == "ended"
    assert event.end == event.start


def test_an_event_that_starts_while_the_rules_change_ends_after_it_has_started(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged, see = threading.Event(), Watcher.see

    def slow(self: Watcher, *frame: Any) -> list[Report]:
        reports = see(self, *frame)
        if reports:
            judged.set()
            time.sleep(0.3)
        return reports

    monkeypatch.setattr(Watcher, "see", slow)
    server = start()
    watched(server)
    feeding = threading.Thread(target=feed, args=(server,), kwargs={"frames": "rrr"})
    feeding.start()
    assert judged.wait(10)
    assert server.http.put("/v1/streams/door/rules", json={}).is_success
    feeding.join()
    [event] = server.http.get("/v1/events").json()
    assert event["state"] == "ended"
    assert server.http.get(event["snapshot"]).is_success


@contextmanager
def red_camera() -> Iterator[str]:
    """Run an IP camera that sends red frames until the end of the block, and give its address."""

    def respond(handler: SourceHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        handler.end_headers()
        frame = jpeg(RED)
        while not handler.server.over.wait(0.04):
            part = b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(frame)
            handler.wfile.write(part + frame + b"\r\n")
        handler.close_connection = True

    with SourceServer() as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        web.responders["/camera"] = respond
        try:
            yield f"{web.address}/camera"
        finally:
            web.over.set()
            web.shutdown()


def test_open_events_end_when_a_camera_is_paused_and_clips_go_on_with_other_rules(
    start: Starter, tmp_path: Path
) -> None:
    with red_camera() as source:
        text = f"""
            [streams.gate]
            source = "{source}"
            model = "detector"
            clip_after = 0.2
            rules.any = {{min_confidence = 0.1}}
        """
        server = start(site=write_site(tmp_path, text))

        def events() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = server.http.get("/v1/events").json()
            return found

        eventually(lambda: bool(events()))
        rules = server.http.get("/v1/streams/gate/rules").json()
        assert server.http.put("/v1/streams/gate/rules", json=rules | {"clip_after": 0.1}).is_success
        eventually(lambda: len(events()) > 1)
        assert all("clip" in event for event in events())
        assert server.http.post("/v1/streams/gate/pause").is_success
        eventually(lambda: {event["state"] for event in events()} == {"ended"})
        assert server.http.get("/v1/streams/gate").json()["state"] == "paused"


@pytest.mark.parametrize(
    ("model", "rules", "says"),
    [
        ("detector", {"rules": {"r": {"classes": ["unicorn"]}}}, "no class 'unicorn'; it has: red, green"),
        (
            "tiny",
            {"lines": {"l": [[0, 0], [1, 1]]}, "rules": {"r": {"line": "l"}}},
            "`line` needs a model that",
        ),
        ("detector", {"events": ["nowhere"]}, "there is no sink 'nowhere'"),
    ],
)
def test_rules_that_do_not_fit_the_model_are_refused(
    start: Starter, model: str, rules: dict[str, Any], says: str
) -> None:
    server = start()
    server.http.post("/v1/streams", json={"id": "door", "model": model})
    refused = server.http.put("/v1/streams/door/rules", json=rules)
    assert refused.status_code == 400
    assert says in refused.json()["detail"]
    at_once = server.http.post("/v1/streams", json={"id": "gate", "model": model, **rules})
    assert (at_once.status_code, at_once.json()["detail"]) == (400, refused.json()["detail"])
    assert server.http.get("/v1/streams/gate").status_code == 404, "it isn't there without its rules"


def test_a_stream_can_be_created_with_its_rules(start: Starter) -> None:
    server = start()
    with Client(str(server.http.base_url)) as client:
        rules = Rules.model_validate(RULES)
        info = client.create_stream("door", model="detector", interval=2, rules=rules)
        assert (info.title, info.rules) == ("Front gate", ("red",))
    assert Rules.model_validate(server.http.get("/v1/streams/door/rules").json()) == rules
    feed(server)
    assert [event["rule"] for event in server.http.get("/v1/events").json()] == ["red"]
    wrong = {"id": "gate", "rules": {"r": {"zone": "nowhere"}}}
    refused = server.http.post("/v1/streams", json=wrong)
    assert refused.status_code == 422
    assert "rules.r: there is no zone 'nowhere'" in refused.text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            '[streams.gate]\nsource = "rtsp://camera/"\nmodel = "tiny"\n[streams.gate.rules.r]\nclasses = ["cat"]',
            r"streams\.gate: rules\.r: 'tiny' has no class 'cat'",
        ),
        ('[sinks.alarm]\nfile = "x"\nclasses = ["persn"]', r"sinks\.alarm: no model has a class 'persn'"),
    ],
)
def test_unknown_classes_end_the_server_at_its_start(models: Path, tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SiteError, match=says):
        Server(Settings(models=models, site=write_site(tmp_path, text), port=0))


def test_a_cameras_events_go_to_a_file_a_webhook_and_a_broker(start: Starter, tmp_path: Path, hook: Hook) -> None:  # noqa: F811
    """The whole way: a site file, a camera, a rule, and everyone who is told, once."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    port = free_port()
    told: dict[str, list[bytes]] = {}
    with SourceServer() as web, broker(tmp_path, port):
        threading.Thread(target=web.serve_forever, daemon=True).start()
        web.responders["/clip.ts"] = file(encode([plain(RED)] * 40, "mpegts", B_FRAMES)[0])
        client = Client(CallbackAPIVersion.VERSION2)
        client.on_message = lambda *args: told.setdefault(args[2].topic, []).append(args[2].payload)
        client.connect("127.0.0.1", port)
        client.loop_start()
        client.subscribe("#", 1)
        text = f"""
            [streams.gate]
            source = "{web.address}/clip.ts"
            model = "detector"
            title = "Front gate"
            zones.all = [[0, 0], [1, 0], [1, 1], [0, 1]]
            clip_before = 1
            clip_after = 1
            rules.anything = {{zone = "all", min_confidence = 0.1}}
            events = ["archive", "hook", "home"]

            [sinks.archive]
            file = "{tmp_path}/events"
            [sinks.hook]
            webhook = "http://127.0.0.1:{hook.server_port}/in"
            secret = "ours"
            [sinks.home]
            mqtt = "mqtt://127.0.0.1:{port}"
            topic = "site/{{stream}}/{{type}}"
            discovery = "homeassistant"
        """
        hook.refusals = 2
        server = start(hasty, site=write_site(tmp_path, text), data=tmp_path / "data")
        until(server, "gate", "ended")
        server.http.delete("/v1/streams/gate")
        [event] = server.http.get("/v1/events").json()
        eventually(lambda: len(told.get("site/gate/event", [])) == 2)
        eventually(lambda: len(told.get("site/gate/event/anything/state", [])) >= 3)
        eventually(lambda: sum(body.count(b"\n") for _, body in hook.taken) == 2)
        states = [("started", None), ("ended", event["end"])]
        with av.open(io.BytesIO(server.http.get(event["clip"]).content), "r") as clip:
            assert clip.format.name.startswith("mov,mp4")
            assert 10 <= len([*clip.decode(video=0)]) <= 40  # of the 1.6 s of the source, by when the event came
        written = lines(tmp_path / "events")
        assert [(line["state"], line.get("end")) for line in written] == states
        assert {(line["id"], line["camera"]) for line in written} == {(event["id"], "Front gate")}
        posted = [json.loads(line) for _, body in hook.taken for line in body.splitlines()]
        assert [(line["id"], line["state"]) for line in posted] == [(event["id"], state) for state, _ in states]
        assert base64.b64decode(posted[0]["snapshot_jpeg"]) == server.http.get(event["snapshot"]).content
        headers, body = hook.taken[0]
        assert headers["Keywarp-Signature"] == "sha256=" + hmac.new(b"ours", body, hashlib.sha256).hexdigest()
        assert [json.loads(payload)["state"] for payload in told["site/gate/event"]] == ["started", "ended"]
        assert told["site/gate/event/anything/state"][:3] == [b"OFF", b"ON", b"OFF"]
        assert told["site/gate/event/anything/snapshot"][0] == base64.b64decode(posted[0]["snapshot_jpeg"])
        config = json.loads(told["homeassistant/binary_sensor/keywarp_gate/anything/config"][0])
        assert config["state_topic"] == "site/gate/event/anything/state"
        assert config["device"]["name"] == "Front gate"
        picture = json.loads(told["homeassistant/image/keywarp_gate/anything/config"][0])
        assert picture["image_topic"] == "site/gate/event/anything/snapshot"
        server.stop()
        eventually(lambda: told["site/status"] == [b"online", b"offline"])
        again = start(data=tmp_path / "data")
        assert again.http.get("/v1/events").json() == [event], "it survives a restart"
        client.disconnect()
        client.loop_stop()
        web.shutdown()


def retained(port: int) -> dict[str, bytes]:
    """Return what a broker retains, by topic."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    found: dict[str, bytes] = {}
    ready = threading.Event()
    client = Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda *args: found.update({args[2].topic: args[2].payload} if args[2].retain else {})
    client.on_subscribe = lambda *_: ready.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.subscribe("#", 1)
    assert ready.wait(10)
    client.publish("asked", b"", 1).wait_for_publish(10)  # confirmed after what is retained was sent
    client.disconnect()
    client.loop_stop()
    return found


def test_home_assistant_forgets_rules_and_cameras_that_are_gone(start: Starter, tmp_path: Path) -> None:
    port = free_port()

    def site(*rules: str) -> str:
        each = "".join(f"rules.{rule} = {{}}\n" for rule in rules)
        return f"""
            [streams.gate]
            source = "rtsp://127.0.0.1:1/away"
            model = "detector"
            {each}
            events = ["home"]
            [streams.yard]
            source = "rtsp://127.0.0.1:1/away"
            model = "detector"
            rules.one = {{}}
            events = ["home"]
            [sinks.home]
            mqtt = "mqtt://127.0.0.1:{port}"
            discovery = "homeassistant"
        """

    def known() -> set[str]:
        return {"/".join(topic.split("/")[2:4]) for topic in retained(port) if topic.endswith("/config")}

    with broker(tmp_path, port):
        server = start(hasty, site=write_site(tmp_path, site("one", "two", "three")))
        both = {"keywarp_gate/one", "keywarp_yard/one"}
        eventually(lambda: known() == both | {"keywarp_gate/two", "keywarp_gate/three"})
        assert server.http.put("/v1/streams/gate/rules", json={"rules": {"one": {}, "two": {}}, "events": ["home"]})
        eventually(lambda: known() == both | {"keywarp_gate/two"})
        server.stop()
        assert known() == both | {"keywarp_gate/two"}, "a server that stops comes again"
        server = start(hasty, site=write_site(tmp_path, site("one")))
        eventually(lambda: known() == both)
        assert server.http.delete("/v1/streams/yard").is_success
        eventually(lambda: known() == {"keywarp_gate/one"})
        assert server.http.put("/v1/streams/gate/rules", json={"rules": {"one": {}}})  # its events go nowhere
        eventually(lambda: known() == set())
        eventually(lambda: [*retained(port)] == ["keywarp/status"])


# -- the store ---------------------------------------------------------------------------------------------------------

DAY = 86_400.0  # seconds


def report(number: int, age: timedelta = timedelta(0), state: str = "ended") -> Report:
    now = datetime.now(UTC) - age
    event = Event.model_validate(
        {"id": f"e{number}", "state": state, "stream": "door", "camera": "Door", "rule": "r", "start": now}
        | {"end": now if state == "ended" else None, "frame": 0, "classes": []}
    )
    return Report(event, b"jpeg")


async def ids(store: EventStore) -> list[str]:
    return [event.id for event in await store.query(EventQuery())]


def test_old_events_and_those_beyond_the_limit_are_deleted(tmp_path: Path) -> None:
    async def write() -> None:
        store = EventStore(tmp_path, days=1, limit=3)
        store.write(report(0, timedelta(days=2)))
        for number in range(1, 6):
            store.write(report(number))
        await store.close()
        store = EventStore(tmp_path, days=1, limit=3)
        assert await ids(store) == ["e5", "e4", "e3"]
        await store.close()

    asyncio.run(write())


def test_a_clock_that_jumps_forward_deletes_events_only_if_it_lasts(tmp_path: Path) -> None:
    jump, passed = Clock(), Clock()  # ahead of the true time; monotonic
    jump.now = 0.0
    true = time.time()

    def open_store() -> EventStore:
        def open_clock(seen: float | None) -> SteadyClock:
            return SteadyClock(seen, lambda: true + jump() + passed() - 1000, passed)

        return EventStore(tmp_path, days=1, limit=999, open_clock=open_clock)

    async def write_many(store: EventStore, first: int) -> int:
        for number in range(first, first + SWEEP_EVERY):
            store.write(report(number))
        return len(await store.query(EventQuery(limit=999)))

    async def write() -> None:
        store = open_store()
        assert await write_many(store, 0) == SWEEP_EVERY
        jump.now = 400 * DAY
        assert await write_many(store, 1000) == 2 * SWEEP_EVERY
        await store.close()
        store = open_store()  # which an operator may try
        assert await write_many(store, 2000) == 3 * SWEEP_EVERY
        jump.now = 0.0
        assert await write_many(store, 3000) == 4 * SWEEP_EVERY
        jump.now = 400 * DAY
        assert await write_many(store, 4000) == 5 * SWEEP_EVERY
        passed.now += 0.9 * DAY  # all are of the true time at the start
        assert await write_many(store, 5000) == 6 * SWEEP_EVERY
        passed.now += 0.2 * DAY
        assert await write_many(store, 6000) == 0
        await store.close()

    asyncio.run(write())


def test_an_event_that_a_killed_server_left_open_has_ended(tmp_path: Path) -> None:
    async def write() -> None:
        store = EventStore(tmp_path, days=1, limit=3)
        store.write(report(1, state="started"))
        await store.close()
        store = EventStore(tmp_path, days=1, limit=3)
        event = await store.get("e1")
        assert event
        assert (event.state, event.end) == ("ended", event.start)
        assert await store.snapshot("e1") == b"jpeg"
        await store.close()

    asyncio.run(write())


def fill_disk(store: EventStore, *, full: bool) -> None:
    """Make SQLite find the disk full, or give it room again."""
    pages = 1 if full else 2**30  # it doesn't go below those in use
    store._thread.submit(lambda: store._database.execute(f"PRAGMA max_page_count = {pages}").fetchone()).result()


def test_events_on_a_full_disk_are_written_when_there_is_room_again(tmp_path: Path) -> None:
    async def write() -> None:
        counts: Counter[str] = Counter()
        store = EventStore(tmp_path, 1, 99, lambda outcome, number: counts.update({outcome: number}), retry_every=0.05)
        store.write(report(1, state="started"))
        assert await ids(store) == ["e1"]
        fill_disk(store, full=True)
        big = b"snapshot" * 100_000
        store.write(Report(report(2, state="started").event, big))
        store.write(Report(report(1).event))
        store.write(Report(report(2).event))
        event = await store.get("e1")
        assert event
        assert (event.state, counts["written"], counts["missed"]) == ("started", 1, 0)
        assert counts["failed"] > 0
        fill_disk(store, full=False)
        async with asyncio.timeout(10):
            while counts["written"] < 3:
                await store.get("e2")  # after what is being written
        events = await store.query(EventQuery())
        assert {one.id: one.state for one in events} == {"e1": "ended", "e2": "ended"}
        assert await store.snapshot("e2") == big
        await store.close()
        assert counts["missed"] == 0

    asyncio.run(write())


def test_events_that_never_find_room_are_counted(tmp_path: Path) -> None:
    async def write() -> None:
        counts: Counter[str] = Counter()
        store = EventStore(tmp_path, 1, 99, lambda outcome, number: counts.update({outcome: number}))
        fill_disk(store, full=True)
        store.write(Report(report(1).event, b"snapshot" * 100_000))
        with pytest.raises(EventStoreError, match="full"):
            await store.write_clip("e1", b"clip" * 100_000)
        await store.close()
        assert counts["missed"] == 2

    asyncio.run(write())


def test_a_full_backlog_gives_up_what_the_database_does_not_know() -> None:
    backlog = Backlog(max_bytes=3100)
    assert backlog.add(Report(report(1).event)) == 0  # the end of an event that is in the database
    assert backlog.add(Report(report(2).event, bytes(1000))) == 0
    assert backlog.add(Report(report(3).event, bytes(1000))) == 1
    assert [one.event.id for one in backlog] == ["e1", "e3"]
    assert sum(backlog.add(Report(report(number).event)) for number in (4, 5, 6)) == 2
    assert [one.event.id for one in backlog] == ["e4", "e5", "e6"]


def test_a_database_that_cannot_be_used_is_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "events.sqlite3").write_bytes(b"no database" * 1000)
    with pytest.raises(EventStoreError, match=r"events\.sqlite3 can't be opened: file is not a database"):
        EventStore(tmp_path, days=1, limit=3)
    (tmp_path / "events.sqlite3").unlink()
    with sqlite3.connect(tmp_path / "events.sqlite3") as newer:
        newer.execute("PRAGMA user_version = 9")
    newer.close()
    with pytest.raises(EventStoreError, match="newer version"):
        EventStore(tmp_path, days=1, limit=3)


def test_a_folder_belongs_to_one_server(tmp_path: Path) -> None:
    async def share() -> None:
        store = EventStore(tmp_path, days=1, limit=3)
        store.write(report(1, state="started"))
        with pytest.raises(EventStoreError, match="another server uses the folder"):
            EventStore(tmp_path, days=1, limit=3)
        event = await store.get("e1")
        assert event
        assert event.state == "started", "the other one has ended nothing"
        await store.close()
        await EventStore(tmp_path, days=1, limit=3).close()

    asyncio.run(share())
