"""Smooth random changes over time."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Wave:
    """A sine wave."""

    amplitude: float = 0.0
    rate: float = 0.0  # radians per frame
    phase: float = 0.0

    def at(self, time: float) -> float:
        """Return the value at a time in frames."""
        return self.amplitude * math.sin(self.rate * time + self.phase)


def draw_wave(random: np.random.Generator, amplitude: float, periods: tuple[float, float]) -> Wave:
    """Draw a sine wave of random phase.

    Args:
        random: The random generator.
        amplitude: The maximum amplitude.
        periods: The range of the period in frames.
    """
    rate = 2 * math.pi / random.uniform(*periods)
    return Wave(amplitude * random.random(), rate, random.uniform(0, 2 * math.pi))


def draw_log_uniform(random: np.random.Generator, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniform."""
    return math.exp(random.uniform(math.log(low), math.log(high)))
