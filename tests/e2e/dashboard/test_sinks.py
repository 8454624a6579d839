"""Sinks are chosen by check boxes: those of a stream's results, and those of its events."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.dashboard.browsing import check_accessibility, visiting, wait_until
from tests.e2e.dashboard.producers import ip_camera
from tests.e2e.running import Server, serving


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sinks")


@pytest.fixture(scope="module")
def site(browser: Browser, models: Path, folder: Path) -> Iterator[Server]:  # noqa: ARG001
    """Run a server with three sinks, of which one takes no events."""
    (folder / "site.toml").write_text(
        f"""
        [sinks.archive]
        file = "{folder}/{{stream}}.ndjson"
        [sinks.alarm]
        webhook = "http://127.0.0.1:9/hook?token=secret"
        [sinks.table]
        parquet = "{folder}/table"
        """,
        encoding="utf-8",
    )
    with serving("--allow-pull", "127.0.0.1", "--site", str(folder / "site.toml"), models=models) as running:
        yield running


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_pulled_cameras_results_go_to_the_chosen_sinks(
    browser: Browser, site: Server, folder: Path, dark: bool
) -> None:
    name = f"yard-{dark}"
    with ip_camera() as address, visiting(browser, site.url, dark=dark) as visit:
        page = visit.page
        page.get_by_role("button", name="Pull a URL").click()
        page.get_by_label("Address").fill(address)
        page.get_by_label("Name").fill(name)
        choice = page.get_by_role("group", name="Results go to")
        expect(choice.get_by_role("checkbox")).to_have_count(3)
        choice.get_by_label("archive (file)").check()
        choice.get_by_label("alarm (webhook)").check()
        choice.get_by_label("alarm (webhook)").uncheck()
        check_accessibility(page, "pull with sinks")
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.get_by_role("dialog").evaluate("dialog => dialog.scrollWidth <= dialog.clientWidth")
        page.get_by_role("dialog").get_by_role("button", name="Start").click()
        expect(page.get_by_role("heading", name=name)).to_be_visible()
        expect(page.get_by_role("definition").get_by_text("archive", exact=True)).to_be_visible()
        assert "secret" not in page.content()
        results = folder / f"{name}.ndjson"
        wait_until(page, lambda: results.exists() and results.stat().st_size > 0, "a result in the file")
        assert httpx.get(f"{site.url}/v1/streams/{name}").json()["sinks"] == ["archive"]
        assert visit.errors == []
    httpx.delete(f"{site.url}/v1/streams/{name}").raise_for_status()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_events_go_to_the_chosen_sinks_that_take_them(browser: Browser, site: Server, dark: bool) -> None:
    httpx.post(f"{site.url}/v1/streams", json={"id": "door"}).raise_for_status()
    with visiting(browser, f"{site.url}/#/streams/door/rules", dark=dark) as visit:
        page = visit.page
        choice = page.get_by_role("group", name="Events go to")
        expect(choice.get_by_role("checkbox")).to_have_count(2)  # A table of results takes no events.
        choice.get_by_label("alarm (webhook)").check()
        check_accessibility(page, "rules with sinks")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_text("Not saved")).to_have_count(0)
        saved = f"{site.url}/v1/streams/door/rules"
        wait_until(page, lambda: httpx.get(saved).json()["events"] == ["alarm"], "saved")
        page.reload()
        expect(choice.get_by_label("alarm (webhook)")).to_be_checked()
        expect(choice.get_by_label("archive (file)")).not_to_be_checked()
        choice.get_by_label("alarm (webhook)").uncheck()
        page.get_by_role("button", name="Save").click()
        wait_until(page, lambda: httpx.get(saved).json()["events"] == [], "saved again")
        assert visit.errors == []
    httpx.delete(f"{site.url}/v1/streams/door").raise_for_status()
