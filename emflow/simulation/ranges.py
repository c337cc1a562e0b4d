"""How the simulator draws from a range."""

import math

import numpy as np

from emflow.simulation_ranges import Range


def uniform(rng: np.random.Generator, bounds: Range) -> float:
    """Draw uniformly between two bounds."""
    return bounds[0] + (bounds[1] - bounds[0]) * float(rng.random())


def mostly_low(rng: np.random.Generator, bounds: Range) -> float:
    """Draw between two bounds by a uniform deviate's square: half of all fall in the lowest quarter."""
    return bounds[0] + (bounds[1] - bounds[0]) * float(rng.random()) ** 2


def log_uniform(rng: np.random.Generator, bounds: Range) -> float:
    """Draw log-uniformly between two positive bounds."""
    return math.exp(uniform(rng, (math.log(bounds[0]), math.log(bounds[1]))))
