"""Hypothesis strategies for pools of scores."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays


def scores(n: int) -> st.SearchStrategy[np.ndarray]:
    """[n] scores of a plausible size, ties included."""
    return arrays(np.float64, n, elements=st.floats(-50, 50).map(lambda value: round(value, 3)))


def weights(n: int) -> st.SearchStrategy[np.ndarray]:
    """[n] log-weights over twenty orders of magnitude."""
    return arrays(np.float64, n, elements=st.floats(-23, 23))


def pools(least: int = 1, most: int = 30) -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    """(scores [n], log-weights [n])."""
    return st.integers(least, most).flatmap(lambda n: st.tuples(scores(n), weights(n)))
