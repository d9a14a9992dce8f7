import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from engine.blindspots.significance import Moments

energies = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=8),
    elements=st.floats(0, 100, width=32),
)


@settings(deadline=None)
@given(energies)
def test_moments_give_numpys_mean_and_unbiased_variance(dense):
    moments = Moments.of(sparse.csr_matrix(dense))
    exact = dense.astype(np.float64)
    np.testing.assert_allclose(moments.mean, exact.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.variance, exact.var(0, ddof=1), rtol=1e-9, atol=1e-9)


def test_one_image_tells_nothing_of_the_variance():
    assert np.isinf(Moments(1, np.array([3.0]), np.array([9.0])).variance).all()


def test_no_image_has_mean_zero():
    assert Moments(0, np.zeros(2), np.zeros(2)).mean.tolist() == [0, 0]
