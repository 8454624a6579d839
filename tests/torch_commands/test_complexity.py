"""`keywarp complexity` through the command a user types."""

import json
import subprocess
import sys

from tests.command_line import keywarp


def test_json_holds_table_2_and_every_network() -> None:
    printed = keywarp("complexity", "--json")
    assert printed.returncode == 0, printed.stderr
    figures = json.loads(printed.stdout)
    assert set(figures) == {"table2", "networks", "counted", "height", "width"}
    assert (figures["height"], figures["width"]) == (600, 1000)
    flows = ["flownet", "flownet_half", "flownet_inception"]
    assert {features: list(row) for features, row in figures["table2"].items()} == {
        "resnet50": flows,
        "resnet101": flows,
    }
    entry = figures["table2"]["resnet50"]["flownet"]
    assert entry["paper"] == 9.20
    assert abs(entry["ratio"] / 9.20 - 1) < 0.03
    assert entry["difference_percent"] == 100 * (entry["ratio"] / entry["paper"] - 1)
    assert set(entry["speed_up"]) == {"5", "10"}
    assert set(figures["networks"]) == {
        "resnet50", "resnet101", *flows, "flow_pyramid", "segmentation_head", "detection_head", "warp",
    }  # fmt: skip
    for cost in figures["networks"].values():
        assert set(cost) == {"operations", "parameters"}


def test_the_tables_name_every_network_and_the_papers_ratios() -> None:
    printed = keywarp("complexity", "--height", "480", "--width", "640")
    assert printed.returncode == 0, printed.stderr
    for text in ("480x640", "resnet101", "flownet_inception", "detection_head", "12.71", "multiply-add", "600x1000"):
        assert text in printed.stdout


def test_an_image_without_pixels_is_wrong_use() -> None:
    assert keywarp("complexity", "--height", "0").returncode == 2


def test_without_torch_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['keywarp', 'complexity']; "
        "from keywarp.cli.main import main; main()"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=False, timeout=60
    )
    assert run.returncode == 1
    assert "counting needs torch: install the extra `train` (README, Install)" in run.stderr
    assert "Traceback" not in run.stderr
