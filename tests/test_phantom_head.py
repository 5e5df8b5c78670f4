"""The analytic head: the same anatomy on every grid, subjects that differ, heads within bounds."""

import numpy as np
import pytest
from scipy import ndimage

from qsmref.phantom.head import Head, Shape, lookup, read_regions, vary_susceptibility
from qsmref.phantom.smooth import SmoothField

NUCLEI = ["CN", "PU", "GP", "TH", "RN", "SN", "DN"]


def volumes(head, matrix, size):
    grid = head.grid(matrix, size)
    labels = head.labels(*grid.axes())
    counts = np.bincount(labels.ravel(), minlength=35)
    return {r.index: counts[r.index] * np.prod(size) for r in head.regions}


def centre(head, index, matrix, size):
    grid = head.grid(matrix, size)
    found = np.argwhere(head.labels(*grid.axes()) == index)
    return np.asarray(grid.origin) + found.mean(axis=0) * size


def test_volumes_do_not_depend_on_the_voxel_size():
    coarse = volumes(Head(), (128, 128, 128), (1.5, 1.5, 1.5))
    other = volumes(Head(), (192, 160, 96), (1.0, 1.2, 2.0))
    for region in read_regions():
        if region.brain and region.name not in ("CSF_P", "vein"):
            assert other[region.index] == pytest.approx(coarse[region.index], rel=0.1, abs=30), (
                region.name
            )


def test_nuclei_stand_where_they_stand_on_any_grid():
    regions = {(r.name, r.hemisphere): r.index for r in read_regions()}
    for name in NUCLEI:
        index = regions[name, "L"]
        a = centre(Head(), index, (96, 112, 80), (2.0, 2.0, 2.0))
        b = centre(Head(), index, (60, 100, 100), (2.4, 1.7, 1.6))
        np.testing.assert_allclose(a, b, atol=0.7)
        assert a[0] < 0, "the left side has negative x in RAS+"


def test_left_and_right_nuclei_mirror_each_other():
    head = Head()
    grid = head.grid((96, 96, 64), (1.5, 2.0, 2.0))
    labels = head.labels(*grid.axes())
    for region in head.regions:
        if region.hemisphere == "L":
            np.testing.assert_array_equal(
                labels == region.index, (labels == region.index + 1)[::-1], region.name
            )


def test_every_region_is_there_and_the_brain_is_one_piece_around_them():
    head = Head()
    grid = head.grid()
    labels = head.labels(*grid.axes())
    assert set(np.unique(labels)) == {r.index for r in head.regions}
    brain = head.brain(labels, grid.axes())
    assert ndimage.label(brain)[1] == 1
    assert 1.0e6 < brain.sum() * 1.5**3 < 1.4e6  # mm3
    # Air never touches the brain: bone and fluid lie between.
    air = lookup(head.regions, "susceptibility_ppm")[labels] > 9
    assert not (ndimage.binary_dilation(brain) & air).any()


def test_the_head_lies_within_its_extent_and_the_default_field_of_view():
    for head in (Head(), Head(shape=Shape.random(np.random.default_rng(5)))):
        extent = np.array(head.extent)
        x, y, z = (np.arange(low - 30, high + 30, 3.0) for low, high in extent)
        labels = head.labels(x, y, z)
        occupied = np.argwhere(labels > 0)
        points = np.stack([a[i] for a, i in zip((x, y, z), occupied.T, strict=True)], axis=1)
        assert np.all(points.min(axis=0) >= extent[:, 0])
        assert np.all(points.max(axis=0) <= extent[:, 1])
    # The neck leaves the default field of view below, the rest does not.
    assert np.all(np.abs(np.array(Head().extent)[:2]) <= 96)


def test_a_subject_has_its_own_shape_and_keeps_it():
    one, again, other = (
        Head(shape=Shape.random(np.random.default_rng(seed))) for seed in (1, 1, 2)
    )
    grid = one.grid((64, 64, 48), (3.0, 3.0, 3.5))
    labels = [h.labels(*grid.axes()) for h in (Head(), one, again, other)]
    np.testing.assert_array_equal(labels[1], labels[2])
    for a, b in ((0, 1), (1, 3)):
        brain = [one.brain(labels[i], None) for i in (a, b)]
        dice = 2 * (brain[0] & brain[1]).sum() / (brain[0].sum() + brain[1].sum())
        assert 0.8 < dice < 0.99


def test_shapes_of_many_subjects_are_those_of_adults():
    shapes = [Shape.random(np.random.default_rng(seed)) for seed in range(200)]
    scales = np.array([s.scale for s in shapes])
    assert scales.mean() == pytest.approx(1.0, abs=0.01)
    assert scales.std(axis=0) == pytest.approx(np.hypot(0.03, 0.015), rel=0.2)
    assert np.abs(scales - 1).max() <= 0.08 + 1e-9
    still = Shape.random(np.random.default_rng(0), amount=0.0)
    assert still.scale == (1, 1, 1) and still.rotation == (0, 0, 0) and still.warp_mm == 0


def test_susceptibility_varies_as_the_table_says():
    regions = read_regions()
    draws = np.array(
        [
            [r.susceptibility_ppm for r in vary_susceptibility(regions, np.random.default_rng(s))]
            for s in range(400)
        ]
    )
    for column, region in enumerate(regions):
        assert draws[:, column].mean() == pytest.approx(
            region.susceptibility_ppm, abs=0.2 * region.sd_ppm + 1e-9
        )
        expected = region.sd_ppm * (1.03 if region.hemisphere in "LR" else 1.0)
        assert draws[:, column].std() == pytest.approx(expected, rel=0.12, abs=1e-9)
    left, right = (
        next(i for i, r in enumerate(regions) if r.name == "SN" and r.hemisphere == side)
        for side in "LR"
    )
    assert np.corrcoef(draws[:, left], draws[:, right])[0, 1] > 0.85


def test_age_moves_iron_rich_nuclei():
    regions = read_regions()
    older = vary_susceptibility(regions, np.random.default_rng(0), 1.0, years=10)
    same = vary_susceptibility(regions, np.random.default_rng(0), 1.0, years=0)
    change = {
        a.name: a.susceptibility_ppm - b.susceptibility_ppm
        for a, b in zip(older, same, strict=True)
    }
    assert change["PU"] == pytest.approx(0.005, abs=2e-6)
    assert change["WM"] == 0
    assert vary_susceptibility(regions, np.random.default_rng(0), 0.0, years=30) == regions


def test_smooth_field_is_a_function_of_position_with_unit_spread():
    field = SmoothField.random(np.random.default_rng(3), 4.0, (-60,) * 3, (60,) * 3)
    x, y, z = np.linspace(-50, 50, 61), np.linspace(-40, 45, 40), np.linspace(-55, 10, 50)
    values = field.on(x, y, z)
    assert values.shape == (61, 40, 50) and values.dtype == np.float32
    assert abs(values.mean()) < 0.1
    assert values.std() == pytest.approx(1.0, abs=0.08)
    np.testing.assert_allclose(field.on(x[7:9], y[3:4], z[20:22]), values[7:9, 3:4, 20:22])
    # Continuous: a step of 0.1 mm changes little.
    np.testing.assert_allclose(field.on(x + 0.1, y, z), values, atol=0.35)
    assert not field.on(np.array([300.0]), y, z).any()


def test_the_oblique_grid_turns_about_the_centre_of_the_head():
    head = Head()
    straight, oblique = head.grid(), head.grid(oblique=25.0)
    middle = np.append((np.array(straight.shape) - 1) / 2, 1)
    np.testing.assert_allclose(straight.affine @ middle, [0, 0, 0, 1], atol=1e-9)
    np.testing.assert_allclose(oblique.affine @ middle, [0, 0, 0, 1], atol=1e-9)
    cosine = oblique.affine[:3, 2] @ [0, 0, 1] / 1.5
    assert np.degrees(np.arccos(cosine)) == pytest.approx(25.0)
    for a, b in zip(straight.axes(), oblique.axes(), strict=True):
        np.testing.assert_array_equal(a, b)
