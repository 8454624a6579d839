"""Zones, lines and rules in the dashboard: drawn with the mouse, a finger and the keyboard, and saved."""

import tomllib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from keywarp.protocol.events import Rules
from tests.e2e.dashboard.browsing import TIMEOUT, check_accessibility, open_view, visiting, wait_for_pictures
from tests.e2e.dashboard.producers import feeding
from tests.e2e.running import Server, serving
from tests.tiny_bundle import tiny_bundle

STEP = 0.01  # by which an arrow key moves a point


@pytest.fixture(scope="module")
def finder(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:  # noqa: ARG001
    """Run a server whose model finds objects."""
    tiny_bundle(tmp_path_factory.mktemp("finder") / "tiny", detection=True)
    with serving(models=tmp_path_factory.getbasetemp() / "finder0") as running:
        yield running


def place(page: Page, x: float, y: float) -> tuple[float, float]:
    """Convert shares of the picture, which is 128x64, to a position on the page."""
    box = page.locator(".places").bounding_box()
    assert box is not None
    scale = min(box["width"] / 128, box["height"] / 64)
    left, top = box["x"] + (box["width"] - 128 * scale) / 2, box["y"] + (box["height"] - 64 * scale) / 2
    return left + x * 128 * scale, top + y * 64 * scale


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*place(page, *start))
    page.mouse.down()
    page.mouse.move(*place(page, *end), steps=4)
    page.mouse.up()


def drag_with_a_finger(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *shares: tuple[float, float]) -> None:
        points = [dict(zip("xy", place(page, *share), strict=True)) for share in shares]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", start)
    for i in range(1, 6):
        touch("touchMove", (start[0] + (end[0] - start[0]) * i / 5, start[1] + (end[1] - start[1]) * i / 5))
    touch("touchEnd")


def corner(page: Page, number: int) -> Locator:
    return page.get_by_role("button", name=f"Corner {number} of")


def rules_of(server: Server, stream: str = "gate") -> dict[str, Any]:
    rules: dict[str, Any] = httpx.get(f"{server.url}/v1/streams/{stream}/rules").json()
    return rules


def save(page: Page) -> None:
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#toast")).to_contain_text("Saved")
    expect(page.get_by_role("button", name="Save")).to_be_disabled()


def test_a_zone_is_drawn_with_the_mouse_and_its_rule_reports_an_event(browser: Browser, server: Server) -> None:
    with visiting(browser, server.url) as visit, feeding(server, "gate"):
        page = visit.page
        page.get_by_role("link", name="gate").click()
        page.get_by_role("link", name="Zones and rules").click()
        expect(page.get_by_role("heading", level=1, name="Zones and rules")).to_be_focused()
        wait_for_pictures(page, 1)
        page.get_by_role("button", name="Zone", exact=True).click()
        for point in ((0.1, 0.2), (0.8, 0.2), (0.8, 0.9), (0.1, 0.9)):
            page.mouse.click(*place(page, *point))
        check_accessibility(page, "drawing")
        page.mouse.click(*place(page, 0.1, 0.2))  # the first corner closes the zone
        expect(corner(page, 1)).to_be_focused()
        page.get_by_label("Zone", exact=True).fill("lawn")
        drag(page, (0.8, 0.9), (0.6, 0.7))  # a corner
        drag(page, (0.45, 0.2), (0.45, 0.1))  # a new one, between two
        expect(page.get_by_role("button", name="Corner 5 of 5 of zone lawn")).to_be_visible()
        corner(page, 5).press("Delete")
        expect(corner(page, 5)).to_have_count(0)
        drag(page, (0.4, 0.4), (0.45, 0.4))  # the whole zone
        page.get_by_role("button", name="Rule for lawn").click()
        page.get_by_label("Name", exact=True).fill("grown")
        choices = page.get_by_label("Add a class")
        assert choices.locator("option").all_inner_texts() == ["All classes", "red", "green"]
        choices.select_option("green")
        expect(page.get_by_text("Least confidence")).to_have_count(0)  # this model has no objects
        expect(page.get_by_role("button", name="Line", exact=True)).to_have_count(0)
        page.get_by_label("Smallest size").fill("12.5")
        page.get_by_role("button", name="Add a time").click()
        page.get_by_label("Time 1 from").fill("00:00")
        page.get_by_label("Time 1 to").fill("23:59")
        check_accessibility(page, "rules")
        save(page)
        saved = rules_of(server)
        corners = [[0.15, 0.2], [0.5, 0.1], [0.85, 0.2], [0.65, 0.7]]
        assert saved["zones"]["lawn"] == [pytest.approx(one, abs=0.01) for one in corners]
        rule = saved["rules"]["grown"]
        assert (rule["classes"], rule["zone"], rule["min_area"]) == (["green"], "lawn", 0.125)
        assert rule["times"] == ["00:00-23:59"]
        open_view(page, "Events")
        expect(page.get_by_role("list", name="Events").get_by_text("in lawn").first).to_be_visible()
        assert visit.errors == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_line_and_its_rule_are_made_with_the_keyboard(browser: Browser, finder: Server, dark: bool) -> None:
    httpx.post(f"{finder.url}/v1/streams", json={"id": "gate"}).raise_for_status()
    with visiting(browser, f"{finder.url}/#/streams/gate/rules", dark=dark) as visit:
        page = visit.page
        page.get_by_role("button", name="Line", exact=True).press("Enter")
        page.get_by_role("button", name="Place a line").press("Enter")
        first = page.get_by_role("button", name="First point of line line-1: 30 % from the left, 60 % from the top")
        expect(first).to_be_focused()
        for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Shift+ArrowRight"):
            page.keyboard.press(key)
        page.get_by_role("button", name="Reverse line-1").press("Enter")
        page.get_by_role("button", name="Rule for line-1").press("Enter")
        page.get_by_label("Crossing").select_option("To its left")
        page.get_by_label("Least confidence").fill("70")
        page.get_by_label("Pause after an event").fill("30")
        expect(page.get_by_label("At least so many at once")).to_be_hidden()
        page.get_by_label("Sat").uncheck()
        check_accessibility(page, "line")
        save(page)
        saved = rules_of(finder)
        assert saved["lines"]["line-1"] == [[0.7, 0.6], [0.321, 0.59]]
        rule = saved["rules"]["rule-1"]
        assert (rule["line"], rule["direction"], rule["min_confidence"], rule["cooldown"]) == (
            "line-1",
            "left",
            0.7,
            30,
        )
        assert rule["days"] == ["mon", "tue", "wed", "thu", "fri", "sun"]
        assert visit.errors == []
    httpx.delete(f"{finder.url}/v1/streams/gate").raise_for_status()


def test_a_zone_is_drawn_with_a_finger_on_a_small_screen(browser: Browser, server: Server) -> None:
    with (
        feeding(server, "gate"),
        browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True) as context,
    ):
        context.set_default_timeout(TIMEOUT)
        page = context.new_page()
        page.goto(f"{server.url}/#/streams/gate/rules")
        wait_for_pictures(page, 1)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.get_by_role("button", name="Zone", exact=True).tap()
        page.locator(".places").scroll_into_view_if_needed()
        for point in ((0.2, 0.2), (0.8, 0.3), (0.5, 0.8)):
            page.touchscreen.tap(*place(page, *point))
        page.get_by_role("button", name="Finish").tap()
        expect(page.get_by_label("Zone", exact=True)).to_have_value("zone-1")
        drag_with_a_finger(page, (0.5, 0.8), (0.4, 0.6))
        save(page)
        corners = [[0.2, 0.2], [0.8, 0.3], [0.4, 0.6]]
        assert rules_of(server)["zones"]["zone-1"] == [pytest.approx(one, abs=0.02) for one in corners]


def test_what_the_server_refuses_is_said_in_words_and_stays_until_it_is_discarded(
    browser: Browser, server: Server
) -> None:
    httpx.post(f"{server.url}/v1/streams", json={"id": "door"}).raise_for_status()
    with visiting(browser, f"{server.url}/#/streams/door/rules") as visit:
        page = visit.page
        page.get_by_label("Time zone").fill("Mars/Olympus")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("alert")).to_contain_text("Mars/Olympus")
        page.get_by_role("button", name="Add a rule").click()
        page.get_by_label("Name", exact=True).fill("no spaces!")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("alert")).to_contain_text("A name has 1 to 64 letters")
        open_view(page, "Models")
        page.goto(f"{server.url}/#/streams/door/rules")
        expect(page.get_by_label("Time zone")).to_have_value("Mars/Olympus")
        expect(page.get_by_text("Not saved")).to_be_visible()
        page.get_by_role("button", name="Discard").click()
        expect(page.get_by_label("Time zone")).to_have_value("UTC")
        assert rules_of(server, "door")["rules"] == {}
    httpx.delete(f"{server.url}/v1/streams/door").raise_for_status()


def test_rules_are_written_for_the_site_file(browser: Browser, server: Server) -> None:
    stream = "front.door"  # its dot must be quoted
    httpx.post(f"{server.url}/v1/streams", json={"id": stream}).raise_for_status()
    rules = {
        "title": 'The "front" door',
        "timezone": "Europe/Berlin",
        "clip_after": 7.5,
        "zones": {"mat": [[0, 0.25], [1, 0], [1, 1]]},
        "lines": {"sill": [[0, 0.5], [1, 0.5]]},
        "rules": {
            "standing": {
                "zone": "mat",
                "classes": ["green"],
                "min_seconds": 2,
                "times": ["22:00-06:00"],
                "days": ["sat"],
            },
            "anything": {},
        },
    }
    httpx.put(f"{server.url}/v1/streams/{stream}/rules", json=rules).raise_for_status()
    with visiting(browser, f"{server.url}/#/streams/{stream}/rules") as visit:
        page = visit.page
        page.get_by_role("button", name="For the site file").click()
        dialog = page.get_by_role("dialog", name="For the site file")
        check_accessibility(page, "site file")
        written = tomllib.loads(dialog.get_by_role("textbox").input_value())["streams"][stream]
        assert Rules.model_validate(written) == Rules.model_validate(rules)
        dialog.get_by_role("button", name="Close").click()
        assert visit.errors == []
    httpx.delete(f"{server.url}/v1/streams/{stream}").raise_for_status()


def test_a_place_that_a_rule_is_about_is_not_deleted(browser: Browser, server: Server) -> None:
    httpx.post(f"{server.url}/v1/streams", json={"id": "door"}).raise_for_status()
    rules = {"zones": {"mat": [[0, 0], [1, 0], [1, 1]]}, "rules": {"standing": {"zone": "mat"}}}
    httpx.put(f"{server.url}/v1/streams/door/rules", json=rules).raise_for_status()
    with visiting(browser, f"{server.url}/#/streams/door/rules") as visit:
        page = visit.page
        page.get_by_role("button", name="Delete mat").click()
        expect(page.locator("#toast")).to_contain_text("mat is used by standing")
        page.get_by_text("standing", exact=True).click()
        page.get_by_label("Where").select_option("Anywhere")
        page.get_by_role("button", name="Delete mat").click()
        page.get_by_label("Camera's name").fill("Door")
        save(page)
        saved = rules_of(server, "door")
        assert (saved["zones"], saved["rules"]["standing"]["zone"], saved["title"]) == ({}, None, "Door")
        assert visit.errors == []
    httpx.delete(f"{server.url}/v1/streams/door").raise_for_status()
