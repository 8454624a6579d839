"""The networks of configurations: they are made once, and again if they can't be used."""

from pathlib import Path

import pytest

from keywarp.cli.errors import CommandError
from keywarp.commands.engine_bench import networks
from keywarp.commands.engine_bench.networks import cache_folder, open_networks, paper_bundle
from tests.quantization.networks import layered_bundle
from tests.tiny_bundle import tiny_bundle


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYWARP_CACHE", str(tmp_path / "cache"))


def test_networks_that_were_made_need_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "find_spec", lambda _: None)
    for flow in networks.FLOW_NETWORKS:
        tiny_bundle(cache_folder() / f"detection-{flow}", name=flow.replace("_", "-"))
    said: list[str] = []
    found = open_networks("paper-detection", Path("none"), said.append)
    assert [(c.label, str(c.motion)) for c in found.candidates] == [
        ("flownet", "network"),
        ("flownet_inception", "network"),
        ("dis-chained-repaired", "dis-chained-repaired"),
        ("codec", "codec"),
    ]
    assert [c.bundle.name for c in found.candidates[:2]] == ["flownet", "flownet-inception"]
    assert (found.size, found.trained, said) == ((600, 1000), False, [])


def test_what_cannot_be_loaded_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "find_spec", lambda _: None)
    folder = cache_folder() / "detection-flownet"
    folder.mkdir(parents=True)
    (folder / "bundle.json").write_text("{}")
    with pytest.raises(CommandError, match="needs torch"):
        paper_bundle("detection", "flownet", lambda _: None)
    assert not folder.exists()


def test_what_fails_leaves_nothing_behind() -> None:
    with pytest.raises(CommandError, match=r"keywarp\.cli init failed: "):
        paper_bundle("detection", "no-such-network", lambda _: None)
    assert list(cache_folder().iterdir()) == []


def test_a_bundle_is_compared_with_its_own_motion_first(tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "tiny", motion="dis")
    layered_bundle(tmp_path / "layered")
    found = {name: open_networks(name, tmp_path, lambda _: None) for name in ("tiny", "layered")}
    assert [c.label for c in found["tiny"].candidates] == ["dis", "network", "dis-chained-repaired", "codec"]
    # Without a flow network, and without copying, for which nothing runs.
    assert [c.label for c in found["layered"].candidates] == ["dis-chained-repaired", "codec"]
    assert open_networks(str(tmp_path / "tiny"), Path("none"), lambda _: None).trained
