"""Scenes that try a field map: what they hold, and that their count is right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri.validation.scenes import fields as field_scenes
from bonemri.validation.scenes.fields import Scene, Tally, distance, draw, scene, swapped, tally, wrapped


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_is_drawn_is_as_told(seed):
    found = draw(np.random.default_rng(seed))
    mask = found.mask
    assert found.data.shape == (*mask.shape, len(found.times)) and mask.ndim == 3
    assert 3 <= len(found.times) <= 12 and (np.diff(found.times) > 0).all()
    assert np.abs(found.field[mask]).max() <= 600.0 + 1e-9
    assert ((found.pdff[mask] >= 0) & (found.pdff[mask] <= 1)).all()
    assert ((found.piece >= 0) == mask).all()
    # the noise is that of the scene, inside and outside: 5 SE of its variance
    turn = np.exp((2j * np.pi * found.field[..., None] - found.r2star) * found.times)
    clean = ((1 - found.pdff)[..., None] + found.pdff[..., None] * found.fat) * turn
    flat, model = found.data[mask], clean[mask]
    phase = np.vdot(model, flat)
    left = flat - model * phase / abs(phase)
    assert abs((np.abs(left) ** 2).mean() / (2 * found.sigma**2) - 1) < 5 / np.sqrt(left.size)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("size", ["lone", "small", "large"])
def test_steps_are_of_200_hz_and_islands_apart(dimensions, size):
    rng = np.random.default_rng(4)
    some = scene(rng, kind="steps", dimensions=dimensions, size=size)
    assert some.mask.any()
    assert some.step <= field_scenes.STEP
    if size != "lone":
        assert some.step > 150.0
    else:  # each is alone
        for axis in range(3):
            a, b = np.moveaxis(some.mask, axis, 0)[:-1], np.moveaxis(some.mask, axis, 0)[1:]
            assert not (a & b).any()
    same = scene(np.random.default_rng(4), kind="steps", dimensions=dimensions, size=size)
    np.testing.assert_array_equal(same.data, some.data)
    assert scene(rng, kind="islands", dimensions=dimensions, size=size).step <= field_scenes.SLOPE


def test_a_swap_in_hertz_and_what_is_fair():
    """The main peak lies 434 Hz from water at 3 T and 0.1 ppm more at body temperature; modulo 1/1.2 ms, 833 Hz."""
    times = 1.2e-3 + 1.2e-3 * np.arange(6)
    some = scene(np.random.default_rng(0), kind="steps", times=times)
    assert some.period == pytest.approx(1 / 1.2e-3)
    assert some.swap == pytest.approx(1 / 1.2e-3 - 427.5, abs=1.0)
    assert some.fair
    assert not scene(np.random.default_rng(0), kind="steps", times=1.2e-3 + 1.5e-3 * np.arange(6)).fair
    uneven = scene(np.random.default_rng(0), times=np.array([1.0, 2.1, 3.0, 4.4]) * 1e-3)
    assert uneven.period == 0.0 and uneven.swap == pytest.approx(427.5, abs=1.0)


def test_the_count():
    """The truth has no swap; moved by the swap, pure tissue is all swapped, and what is called so is not confident."""
    some = scene(np.random.default_rng(3), composition="fat", r2star=30.0)
    rate, calm = np.full(some.mask.shape, 30.0), np.zeros(some.mask.shape, bool)
    right = tally(some, np.where(some.mask, some.field, np.nan), rate, calm)
    assert right == Tally(voxels=int(some.mask.sum()), told=int((some.mask & (distance(some) >= 36)).sum()))
    moved = some.field + 432.0  # fat taken for water
    wrong = tally(some, moved, rate, calm)
    assert wrong.swaps == wrong.confident == wrong.voxels and wrong.breaches == wrong.told
    said = tally(some, moved, rate, some.mask)
    assert said.confident == 0 and said.ambiguous == said.voxels and said.needless == said.told
    assert wrong + said == Tally(*(a + b for a, b in zip(vars(wrong).values(), vars(said).values(), strict=True)))
    assert not swapped(some, some.field + some.period, rate).any()  # whole periods are no error
    lost = tally(some, np.full(some.mask.shape, np.nan), rate, calm)
    assert lost.swaps == lost.voxels  # no answer is no right one


def brute(one: Scene, offset: float) -> float:
    """Least residual over sigma^2 of noise-free data at a field that is off, by numpy, over the piece."""
    total = 0.0
    for v in map(tuple, np.argwhere(one.mask)):
        clean = ((1 - one.pdff[v]) + one.pdff[v] * one.fat) * np.exp(-one.r2star * one.times)
        best = np.inf
        for rate in np.arange(0, 601, 4.0):
            basis = np.exp((2j * np.pi * offset - rate) * one.times)[:, None]
            basis = basis * np.stack([np.ones(len(one.times)), one.fat], axis=1)
            best = min(best, np.linalg.norm(clean - basis @ np.linalg.lstsq(basis, clean, rcond=None)[0]) ** 2)
        total += best
    return total / one.sigma**2


@pytest.mark.parametrize(("pdff", "r2star"), [(1.0, 150.0), (0.0, 40.0), (0.8, 60.0)])
def test_the_distance_is_that_of_least_squares(pdff, r2star):
    """One piece of two voxels: the least over offsets near the swap; a grid of rates costs a part in a hundred."""
    times = 1.2e-3 + 1.1e-3 * np.arange(6)
    like = scene(np.random.default_rng(0), times=times, r2star=r2star)
    mask = np.zeros((1, 1, 2), bool) | True
    one = Scene(like.data[:, :1, :2], mask, np.zeros(mask.shape), np.full(mask.shape, pdff), np.zeros(mask.shape, int),
                times, like.fat, r2star, 0.05, 3.0)  # fmt: skip
    found = distance(one)
    near = [s * o for s in (-1, 1) for o in np.arange(400.0, 480.0, 4.0)]
    assert found[0, 0, 0] == pytest.approx(min(brute(one, offset) for offset in near), rel=0.03)
    assert found[0, 0, 1] == found[0, 0, 0]
    louder = Scene(**{**vars(one), "sigma": 0.1})
    assert distance(louder)[0, 0, 0] == pytest.approx(found[0, 0, 0] / 4)


def test_differences_modulo_a_period():
    np.testing.assert_allclose(wrapped(np.array([900.0, -430.0, 10.0]), 890.0), [10.0, -430.0, 10.0])
    np.testing.assert_allclose(wrapped(np.array([900.0]), 0.0), [900.0])
