"""The simulation of frames in flight: its virtual time, on the real executor."""

import pytest

from bench.in_flight import CARDS, INTERVAL, KEY_OPERATIONS, PROPAGATED_OPERATIONS, Figure, HostStage, simulate

STAGES = {
    "decode": HostStage(0.002, 0.0),
    "prepare": HostStage(0.002, 0.0),
    "check": HostStage(0.0, 0.0),
    "tail": HostStage(0.02, 0.0),
}
CARD = CARDS[0]


def run(lanes: int, interpreter: float = 0.0) -> Figure:
    stages = {name: HostStage(stage.seconds, stage.seconds * interpreter) for name, stage in STAGES.items()}
    return simulate(CARD, stages, lanes, cores=8, streams=4, frames=INTERVAL, on_device=False)


def test_frames_in_flight_fill_the_time_in_which_others_wait() -> None:
    serial, in_flight = run(1), run(4)
    assert in_flight.fps > 3 * serial.fps
    computing = (KEY_OPERATIONS + (INTERVAL - 1) * PROPAGATED_OPERATIONS) / INTERVAL / (CARD.peak * CARD.reached)
    for figure in (serial, in_flight):
        assert figure.device == pytest.approx(figure.fps * computing)
    assert run(4) == in_flight  # virtual time doesn't depend on this machine


def test_what_holds_the_interpreter_limits_them() -> None:
    held = run(4, interpreter=1.0)
    assert held.fps == pytest.approx(1 / 0.024, rel=0.2)  # all stages of a frame, one after another
    assert held.interpreter > 0.9
