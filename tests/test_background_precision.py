"""Background removal in single precision against double."""

import numpy as np
import pytest
from background_cases import background, ball, relative, sphere_field

from qsmref.reconstruction import methods, remove_background
from qsmref.reconstruction.background import method_parameters

SHAPE, SIZE = (36, 36, 20), (1, 1, 2)
#: Parameters that suit a small ball.
SMALL = {"sharp": {"radius_mm": 4}, "resharp": {"radius_mm": 4}, "v-sharp": {"radius_mm": 6}}


@pytest.fixture(scope="module")
def case():
    mask = ball(SHAPE, SIZE, 15)
    field = background(SHAPE, SIZE) + sphere_field(SHAPE, SIZE, (2, -3, 1), 4, 0.1)
    return field.astype(np.float32), mask


@pytest.mark.parametrize("method", [m for m in methods.BACKGROUND if m != "none"])
def test_precision(case, method):
    field, mask = case
    parameters = {**SMALL.get(method, {})}
    if "max_iterations" in method_parameters(method):
        parameters |= {"tolerance": 0, "max_iterations": 10}
    single, kept, _ = remove_background(field, mask, SIZE, method, **parameters)
    double, _, _ = remove_background(field.astype(float), mask, SIZE, method, **parameters)
    assert double.dtype == np.float64
    assert relative(single, double, kept) < 2e-3
