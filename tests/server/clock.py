"""A clock that a test sets."""


class Clock:
    """Monotonic seconds that pass only when the test says so. Call it to read them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
