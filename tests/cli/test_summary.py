from rich.console import Console

from keywarp.cli.summary import Latency, Summary, summary_table

SUMMARY = Summary("street, interval 10", 250, 25, 12.5, Latency(0.2, 0.25), None)


def test_figures_are_converted_for_json() -> None:
    assert SUMMARY.as_dict() == {
        "title": "street, interval 10",
        "frames": 250,
        "key_frames": 25,
        "seconds": 12.5,
        "fps": 20.0,
        "key": {"p50": 0.2, "p99": 0.25},
        "propagated": None,
        "reconnects": 0,
        "missing": 0,
        "damage": None,
        "notes": (),
    }


def test_the_table_fits_a_terminal() -> None:
    console = Console(width=80)
    with console.capture() as shown:
        console.print(summary_table([SUMMARY]))
    assert "street, interval 10" in shown.get()
    for figure in ("250", "25", "20.0", "200.0 / 250.0", " -"):
        assert figure in shown.get()
