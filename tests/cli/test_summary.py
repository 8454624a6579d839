import pytest
from rich.console import Console

from keywarp.cli.summary import Latency, Summary, covered, summary_table


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ([], 0),
        ([(1, 3)], 2),
        ([(1, 3), (5, 6)], 3),
        ([(1, 3), (2, 6)], 5),
        ([(2, 3), (1, 9), (4, 5)], 8),
        ([(1, 2), (1, 2)], 1),
        ([(1, 2), (2, 3)], 2),
    ],
)
def test_time_that_spans_share_counts_once(spans: list[tuple[float, float]], seconds: float) -> None:
    assert covered(spans) == seconds


def test_percentiles_are_of_all_frames() -> None:
    latency = Latency.of([i / 100 for i in range(101)])
    assert latency is not None
    assert (latency.p50, latency.p99) == pytest.approx((0.5, 0.99))
    assert Latency.of([]) is None


SUMMARY = Summary("street, interval 10", 250, 25, 12.5, Latency(0.2, 0.25), None)


def test_figures_are_given_for_json() -> None:
    assert SUMMARY.as_dict() == {
        "title": "street, interval 10",
        "frames": 250,
        "key_frames": 25,
        "seconds": 12.5,
        "fps": 20.0,
        "key": {"p50": 0.2, "p99": 0.25},
        "propagated": None,
        "reconnects": 0,
    }


def test_the_table_fits_a_terminal() -> None:
    console = Console(width=80)
    with console.capture() as shown:
        console.print(summary_table([SUMMARY]))
    assert "street, interval 10" in shown.get()
    for figure in ("250", "25", "20.0", "200.0 / 250.0", " -"):
        assert figure in shown.get()
