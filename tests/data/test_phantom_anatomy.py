"""Shapes whose distances are known, and how they are painted."""

import numpy as np
import pytest

from src.data.phantom_anatomy import AIR, Canvas, Points, draw_anatomy


def points(*places: tuple[float, float, float]) -> Points:
    z, y, x = np.array(places, dtype=float).T
    return Points(z, y, x)


def canvas(seed: int = 1) -> Canvas:
    return Canvas(np.random.default_rng(seed))


def test_the_distance_to_a_sphere_is_exact():
    # A sphere of radius 10 around (1, 2, 3): 5 outside, on the surface, 4 inside.
    there = points((1, 2, 18), (1, 12, 3), (7, 2, 3))
    assert there.ellipsoid((1, 2, 3), (10, 10, 10)) == pytest.approx([5, 0, -4], abs=1e-3)


def test_a_turned_ellipsoid_has_its_long_axis_where_it_was_turned_to():
    # Half axes y 20 and x 5; a quarter turn lays the long one along x.
    there = points((0, 20, 0), (0, 0, 20))
    assert there.ellipsoid((0, 0, 0), (5, 20, 5))[0] == pytest.approx(0, abs=1e-3)
    assert there.ellipsoid((0, 0, 0), (5, 20, 5), np.pi / 2)[1] == pytest.approx(0, abs=1e-3)


def test_a_column_is_the_same_at_every_height():
    there = points((-30, 0, 9), (0, 0, 9), (30, 0, 9))
    assert there.column(0, 0, 4, 4) == pytest.approx([5, 5, 5], abs=1e-2)


def test_a_tube_narrows_and_ends():
    # From the origin to z = 10, radius 4 to 2: 6 beside its start, 3 beside its middle's axis,
    # and 5 beyond its end: 6 - 4, 3 - 3, 5 - 2.
    there = points((0, 6, 0), (5, 0, 3), (15, 0, 0))
    tube = there.tube(np.zeros(3), np.array([10.0, 0, 0]), (4, 2))
    assert tube == pytest.approx([2, 0, 3])


def test_waves_are_smooth_and_of_the_amplitude_asked_for():
    line = np.linspace(0, 4000, 40001)
    fields = [
        Points(0 * line, 0 * line, line).waves(np.random.default_rng(seed), 40, 3)
        for seed in range(50)
    ]
    assert np.std(fields) == pytest.approx(3, rel=0.1)
    # No slope is steeper than that of six aligned waves: 6 * 2 pi / 40 * 3 / sqrt(3).
    assert np.abs(np.diff(fields)).max() / 0.1 <= 6 * 2 * np.pi / 40 * 3 / np.sqrt(3)


def test_paint_covers_half_of_a_voxel_that_the_surface_cuts():
    picture = canvas()
    distance = np.full_like(picture.hu, 10.0)
    distance[0, 0, :3] = -10, 0, 0.625  # inside, on the edge, a quarter of the 2.5 mm beyond it
    picture.paint(distance, 100.0)
    # 0.5 - 0.625 / 2.5 = 0.25 of the way from air (-1000) to 100.
    assert picture.hu[0, 0, :4].tolist() == [100, -450, -725, AIR]


def test_paint_stays_inside_what_it_is_clipped_to():
    picture = canvas()
    everywhere = np.full_like(picture.hu, -10.0)
    inside = np.full_like(picture.hu, 10.0)
    inside[0, 0, 0] = -10
    picture.paint(everywhere, 40.0, inside=inside)
    assert picture.hu[0, 0, 0] == 40
    assert (picture.hu.ravel()[1:] == AIR).all()


def test_an_organ_lies_inside_the_body_and_a_lesion_inside_the_organ():
    picture = canvas()
    anatomy = draw_anatomy(picture)
    organ = anatomy.organ < 0
    assert organ.any()
    assert (anatomy.body[organ] < 0).all()
    assert (organ & (anatomy.lesion < 0)).any()
    assert (picture.hu[anatomy.body > 5] == AIR).all()
