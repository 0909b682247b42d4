"""Cortical bone: porosity met, canals as published, pore water by Brownstein and Tarr, R2', seeds, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri.errors import InputError
from bonemri.phantoms import pores
from bonemri.phantoms.cortical import cortical
from bonemri.phantoms.haversian import MOST_POROSITY, Canals, haversian, plan
from bonemri.phantoms.leg import draw as draw_leg
from bonemri.phantoms.transfer import apparent, recovery
from bonemri.simulator import tissues

ROUNDING = 1e-12
PRESCRIBED = 0.002  # what a prescribed porosity may be missed by
few = settings(max_examples=6, deadline=None)
D = 2e-3  # mm2/s


@pytest.fixture(scope="module")
def shin():
    return cortical(resolution=1e-3, slices=2)


def total(bone, *names):
    pools = bone.pools["volume_fraction"]
    chosen = [name for name in pools["pool"].values if str(name).startswith(names)]
    return pools.sel(pool=chosen).sum("pool").values


def porosity_of(bone):
    pore = total(bone, "pore_water")
    return pore.sum() / (pore + total(bone, "cortical_")).sum()


# ---- porosity --------------------------------------------------------------------------------------------------


@few
@given(porosity=st.floats(0.0, MOST_POROSITY), seed=st.integers(0, 2**40))
def test_a_block_has_the_porosity_asked_for(porosity, seed):
    block = haversian(porosity=porosity, seed=seed, width=2e-3, resolution=40e-6, slices=1)
    assert porosity_of(block) == pytest.approx(porosity, abs=PRESCRIBED)
    assert block.pools.attrs["porosity"] == pytest.approx(porosity_of(block), abs=ROUNDING)
    assert np.nanmax(block.truth["porosity"]) <= 1 + ROUNDING


@settings(max_examples=4, deadline=None)
@given(porosity=st.floats(0.0, 0.2), seed=st.integers(0, 2**40), resolution=st.floats(0.8e-3, 3e-3))
def test_a_leg_has_the_porosity_asked_for(porosity, seed, resolution):
    bone = cortical(porosity=porosity, seed=seed, resolution=resolution, slices=1, vials=False)
    assert porosity_of(bone) == pytest.approx(porosity, abs=PRESCRIBED)


@pytest.mark.parametrize("condition", tissues.CONDITIONS)
def test_every_condition_has_its_porosity(condition):
    bone = cortical(condition, resolution=2e-3, slices=1, vials=False)
    assert porosity_of(bone) == pytest.approx(tissues.value("cortical.porosity", 3.0, condition), abs=PRESCRIBED)


def test_ageing_is_canal_size_and_not_canal_number():
    found = [haversian(condition, resolution=50e-6, width=2e-3, slices=1).pools.attrs
             for condition in ("young", "old", "osteoporotic")]
    porosity, size, number = (np.array([each[name] for each in found])
                              for name in ("porosity", "canal_diameter", "canal_density"))
    assert (np.diff(porosity) > 0).all()
    assert (np.diff(size) > 0).all()
    # A block holds a whole number of canals.
    cells = np.array([each["cortical_thickness"] * 2e-3 for each in found])
    assert (np.abs(number - tissues.value("cortical.canal_density")) <= 0.5 / cells).all()


def test_the_endosteal_side_is_more_porous():
    bone = haversian("old", width=8e-3, resolution=50e-6, slices=1)
    map_ = bone.truth["porosity"].values[0, 1:-1, 1:-1]
    third = map_.shape[1] // 3
    outer, inner = np.nanmean(map_[:, :third]), np.nanmean(map_[:, -third:])
    # Area rises from 1 to g over the depth: the thirds' middles stand at a sixth and five sixths.
    g = tissues.value("cortical.porosity_gradient")
    expected = (1 + (g - 1) * 5 / 6) / (1 + (g - 1) / 6)
    lacunar = tissues.value("cortical.lacunar_porosity")
    found = (inner - lacunar) / (outer - lacunar)
    count = 8e-3 * bone.pools.attrs["cortical_thickness"] / 3 * tissues.value("cortical.canal_density")
    spread = tissues.value("cortical.canal_spread")
    # Canals of a third are a sample: number (Poisson at most) and areas (log-normal) vary independently.
    relative = math.sqrt(2 * math.exp(4 * spread**2) / count)
    assert abs(found / expected - 1) < 4 * relative


# ---- canals ----------------------------------------------------------------------------------------------------


def test_canals_are_log_normal_and_do_not_overlap():
    from scipy.stats import kstest

    from bonemri.phantoms.haversian import draw

    side = 10e-3

    def candidates(rng, n):
        u, v = rng.random((2, n)) - 0.5
        return u * side, v * side, u + 0.5, side / 2 - np.maximum(abs(u), abs(v)) * side

    canals = draw("test", np.random.default_rng(5), side**2, 0.05, candidates, 15e6, 0.35, 1.0)
    assert canals.x.size == 1500
    assert canals.area() == pytest.approx(0.05 * side**2, rel=ROUNDING)
    logs = np.log(2 * canals.radius)
    median = pores.median_diameter(math.sqrt(4 * 0.05 / (math.pi * 15e6)), 0.35)
    # The scaling to the exact porosity moves the median within the noise of a mean of squares.
    assert logs.mean() == pytest.approx(math.log(median), abs=4 * 0.35 / math.sqrt(1500))
    assert kstest((logs - logs.mean()) / 0.35, "norm").pvalue > 1e-3
    gap = np.hypot(canals.x[:, None] - canals.x, canals.y[:, None] - canals.y) - canals.radius[:, None] - canals.radius
    np.fill_diagonal(gap, 1)
    assert gap.min() > 0
    assert (np.abs(canals.x) + canals.radius < side / 2).all()


@few
@given(x=st.floats(-3.0, 3.0), y=st.floats(-3.0, 3.0), radius=st.floats(0.05, 3.0))
def test_pixels_hold_the_exact_area_of_a_canal(x, y, radius):
    one = Canals(*(np.array([each]) for each in (x, y, radius)))
    fine = one.fill((64, 64), 0.25)
    coarse = one.fill((16, 16), 1.0)
    assert fine.sum() * 0.25**2 == pytest.approx(math.pi * radius**2, rel=1e-9)
    np.testing.assert_allclose(fine.reshape(16, 4, 16, 4).mean(axis=(1, 3)), coarse, rtol=0, atol=1e-11)
    # Midpoint counting, an independent witness: its error is at most the share of sub-squares that the rim crosses.
    n = 400
    at = ((np.arange(16 * n) + 0.5) / n - 8)
    inside = np.hypot(at[None, :] - x, at[:, None] - y) < radius
    counted = inside.reshape(16, n, 16, n).mean(axis=(1, 3))
    assert np.abs(counted - coarse).max() < 4 * math.pi / n


def test_canals_given_a_diameter_change_in_number():
    wide, narrow = (plan("test", "young", 3.0, 0.08, d)["density"] for d in (80e-6, 40e-6))
    assert narrow == pytest.approx(4 * wide, rel=ROUNDING)


# ---- conservation, scales, seeds -------------------------------------------------------------------------------


def test_volumes_are_conserved(shin):
    volume = shin.pools["volume_fraction"].values
    assert volume.min() >= 0
    whole = volume.sum(axis=0)
    assert whole.max() <= 1 + ROUNDING
    # Muscle, bone and fat fill their voxels: the middle of the leg has no gaps.
    middle = tuple(n // 2 for n in whole.shape)
    assert whole[middle] == pytest.approx(1, abs=ROUNDING)
    pore, bone = total(shin, "pore_water"), total(shin, "cortical_")
    density = shin.pools["density"].sel(pool=[n for n in shin.pools["pool"].values if "pore_water" in str(n)])
    np.testing.assert_allclose(density.sum("pool"), pore * tissues.value("water.density"), rtol=ROUNDING)
    assert (whole[:, [0, -1]] == 0).all() and (whole[:, :, [0, -1]] == 0).all()
    assert bone.sum() > 0


def test_anatomy_does_not_depend_on_resolution():
    sizes = (2e-3, 1e-3, 0.5e-3)
    bones = [cortical(resolution=size, slices=1, vials=False) for size in sizes]
    for name in ("cortical_area", "cortical_thickness", "canal_diameter", "canal_density"):
        assert len({bone.pools.attrs[name] for bone in bones}) == 1
    for names in (("cortical_", "pore_water"), ("muscle_",), ("adipose",), ("fat", "marrow_water", "blood")):
        area = [total(bone, *names).sum() * size**2 for bone, size in zip(bones, sizes, strict=True)]
        # Every voxel averages squares of .1 to .2 mm: what is left is second order in them over the size of parts.
        assert np.ptp(area) < 0.01 * np.mean(area)


def test_the_fine_block_averages_to_the_coarse_map():
    options = {"width": 2e-3, "thickness": 4e-3, "slices": 4, "seed": 3}
    fine = haversian(resolution=25e-6, **options)
    pore = total(fine, "pore_water")[0]
    solid = pore + total(fine, "cortical_")[0]
    coarse = haversian(resolution=100e-6, **options)
    # Both grids are centred, and the coarse one has a wider margin: cut to the block itself.
    blocks = [each[1:-1, 1:-1].reshape(20, 4, 40, 4).mean(axis=(1, 3)) for each in (pore, solid)]
    for mean, direct in zip(blocks, (total(coarse, "pore_water")[0],
                                     (total(coarse, "pore_water") + total(coarse, "cortical_"))[0]), strict=True):
        np.testing.assert_allclose(mean, direct[1:-1, 1:-1], rtol=0, atol=1e-11)


def test_a_specimen_shows_the_canals_of_the_leg():
    specimen = cortical(canals=True, resolution=0.2e-3, slices=1)
    leg = cortical(resolution=1e-3, slices=1, vials=False)
    assert porosity_of(specimen) == pytest.approx(tissues.value("cortical.porosity", 3.0, "young"), abs=PRESCRIBED)
    for name in ("cortical_area", "canal_diameter", "canal_density"):
        assert specimen.pools.attrs[name] == leg.pools.attrs[name]
    assert not {"muscle_water", "adipose"} & set(specimen.pools["pool"].values)


def test_same_seed_same_bits():
    def make(seed):
        return cortical(seed=seed, resolution=3e-3, slices=1)

    assert make(4).pools.identical(make(4).pools)
    assert not np.array_equal(make(4).pools["density"].values.sum(axis=0).shape,
                              make(5).pools["density"].values.sum(axis=0).shape) or not np.array_equal(
        make(4).pools["density"].values, make(5).pools["density"].values)


@pytest.mark.parametrize("condition", ["young", "osteoporotic"])
def test_the_cortex_is_as_thick_as_asked(condition):
    for seed in range(5):
        body = draw_leg(np.random.default_rng(seed), 3.0, condition, None)
        wanted = tissues.value("cortical.thickness", 3.0, condition)
        assert body.tibia.thickness() == pytest.approx(wanted, rel=1e-6)
        assert (body.tibia.inner.radius < body.tibia.outer.radius).all()
        assert body.tibia.outer.radius.min() < body.skin.radius.min()


# ---- pore water ------------------------------------------------------------------------------------------------


def test_without_surface_relaxivity_pores_are_bulk():
    assert float(pores.relaxation_time(1e5, 2.0, 0.0)) == 2.0
    assert (pores.slowest_rate(np.array([10e-6, 100e-6]), 0.0, D) < 1e-12).all()


def test_a_wide_pore_is_bulk():
    assert float(pores.relaxation_time(pores.surface_to_volume(1.0), 2.0, 1e-5)) == pytest.approx(2.0, rel=1e-4)
    assert float(pores.slowest_rate(1.0, 1e-3, D)) < 1e-7


@pytest.mark.parametrize("shape", ["cylinder", "sphere"])
@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.3, 3.0, 30.0])
def test_slowest_mode_against_diffusion_on_a_grid(shape, ratio):
    from scipy.linalg import eigh_tridiagonal

    # Finite volumes in shells: diffusion between them, relaxation in the last. Second order in the shell.
    diameter, n = 60e-6, 600
    radius, flow = diameter / 2, D * 1e-6
    relaxivity = ratio * flow / diameter
    power = 1 if shape == "cylinder" else 2
    edge = np.linspace(0, radius, n + 1)
    volume = np.diff(edge ** (power + 1)) / (power + 1)
    link = flow * edge[1:-1] ** power / (radius / n)
    # The wall relaxes what diffuses half a shell to reach it.
    wall = radius**power / (1 / relaxivity + radius / n / 2 / flow)
    diagonal = (np.append(link, wall) + np.append(0.0, link)) / volume
    found = eigh_tridiagonal(diagonal, -link / np.sqrt(volume[:-1] * volume[1:]), select="i", select_range=(0, 0))[0][0]
    rate = float(pores.slowest_rate(diameter, relaxivity, D, shape))
    assert rate == pytest.approx(found, rel=1e-4)
    fast = relaxivity * pores.surface_to_volume(diameter, shape)
    assert rate <= fast
    if ratio <= 0.3 and shape == "cylinder":
        # The next order of the series of x J1(x)/J0(x): an eighth of the ratio, less a term in its square.
        assert fast / rate - 1 == pytest.approx(ratio / 8, abs=ratio**2 / 8)
        assert float(pores.diffusion_ratio(diameter, relaxivity, D)) == pytest.approx(ratio)


def test_shares_of_a_log_normal_against_sampling():
    sizes = np.random.default_rng(1).lognormal(math.log(60e-6), 0.35, 200_000)
    area = sizes**2
    for name, (share, stands) in pores.shares(60e-6, 0.35).items():
        low, high = pores.CLASSES[name]
        chosen = (sizes >= low) & (sizes < high)
        noise = math.sqrt((area[chosen] ** 2).sum()) / area.sum()
        assert share == pytest.approx(area[chosen].sum() / area.sum(), abs=5 * noise)
        assert low <= stands.min() and stands.max() <= high
    assert sum(share for share, _ in pores.shares(60e-6, 0.35).values()) == pytest.approx(1, abs=ROUNDING)


def test_larger_pores_relax_more_slowly(shin):
    names = [f"pore_water_{name}" for name in ("lacunar", "small", "medium", "large")]
    for time in ("T2", "T1_observed"):
        values = shin.pools[time].sel(pool=names).values
        assert (np.diff(values) > 0).all()
    assert shin.pools["T2"].sel(pool=names).max() < tissues.value("pore_water.T2_bulk")


def test_pore_water_from_a_distribution_fills_the_porosity():
    porosity = np.linspace(0, 1, 11).reshape(1, 1, 11)
    found = pores.from_distribution(porosity, diameter=60e-6, spread=0.35, field=3.0)
    np.testing.assert_allclose(sum(pool.volume_fraction for pool in found), porosity, rtol=0, atol=ROUNDING)


def test_R2_prime_grows_with_the_field_and_with_leaning():
    at = {field: pores.reversible_rate(field, 0.05, 12.0) for field in (1.5, 3.0)}
    np.testing.assert_allclose(at[3.0], 2 * np.array(at[1.5]), rtol=ROUNDING)
    assert pores.reversible_rate(3.0, 0.05, 0.0) == (0.0, 0.0)
    assert pores.reversible_rate(3.0, 0.05, 20.0)[0] > at[3.0][0]


def test_R2_prime_against_canals_that_lean_at_random():
    # An ensemble of leaning canals, each with its own frequency, and the time at which it has lost 1 - 1/e.
    s = math.radians(8.0)
    lean = np.random.default_rng(2).normal(0, s, (2, 400_000))
    contrast = (tissues.value("water.chi") - tissues.value("bone.chi")) * 1e-6
    omega = 2 * math.pi * 42.577478518e6 * 3.0 * contrast / 2 * (np.cos(np.hypot(*lean)) ** 2 - 1 / 3)
    rate = pores.reversible_rate(3.0, 0.0, 8.0)[0]
    left = abs(np.exp(1j * omega / rate).mean())
    # Exponential spread holds to second order in the angle (2 s2 = .04); sampling noise is below that.
    assert left == pytest.approx(math.exp(-1), abs=0.02)


def test_R2_prime_is_zero_where_the_field_is_applied(shin):
    applied = cortical(resolution=3e-3, slices=1, susceptibility_applied=True)
    assert (applied.pools["R2_prime"] == 0).all()
    rates = shin.pools["R2_prime"].sel(pool=["pore_water_small", "pore_water_medium", "pore_water_large"])
    assert (rates > 0).all()
    lower = cortical(resolution=3e-3, slices=1, field=1.5)
    ratio = shin.pools["R2_prime"].sel(pool="pore_water_small") / lower.pools["R2_prime"].sel(pool="pore_water_small")
    # Twice, but for the share of canals that the grid of each resolves (porosity met to .002 of 1).
    assert float(ratio) == pytest.approx(2, rel=PRESCRIBED)


def test_reference_vials_hold_what_they_are_called(shin):
    for percent in (10, 20, 30, 40):
        vial = shin.pools.sel(pool=f"vial_{percent}")
        full = vial["volume_fraction"].values > 1 - 1e-9
        assert full.any()
        np.testing.assert_allclose(vial["density"].values[full], percent / 100 * tissues.value("water.density"))
        assert float(vial["T2"]) == tissues.value("bound_water.T2")


# ---- exchange --------------------------------------------------------------------------------------------------


def test_exchange_is_in_detailed_balance_and_reproduces_the_observed_T1():
    from scipy.integrate import solve_ivp

    bone = cortical(resolution=3e-3, slices=1, exchange=True)
    names = ["cortical_bound_water", "cortical_collagen"]
    rates = bone.pools["exchange"].sel(pool=names, pool_to=names).values
    held = bone.pools["density"].sel(pool=names).values
    np.testing.assert_allclose(rates[0, 1] * held[0], rates[1, 0] * held[1], rtol=ROUNDING, atol=1e-12)
    R1 = 1 / bone.pools["T1_intrinsic"].sel(pool=names).values
    observed = tissues.value("bound_water.T1")
    times = np.linspace(0, 5 * observed, 200)

    def flow(_, m):  # the magnetisations themselves, per litre of matrix: another form than the tested one
        m0 = np.array([1.0, rates[0, 1] / rates[1, 0]])
        return R1 * (m0 - m) + np.array([rates[1, 0] * m[1] - rates[0, 1] * m[0],
                                         rates[0, 1] * m[0] - rates[1, 0] * m[1]])

    witness = solve_ivp(flow, (0, times[-1]), np.zeros(2), t_eval=times, rtol=1e-9, atol=1e-12).y[0]
    np.testing.assert_allclose(recovery(times, R1[0], R1[1], rates[0, 1], rates[1, 0]), witness, atol=1e-7)
    T1, residual = apparent(times, witness)
    assert T1 == pytest.approx(observed, rel=1e-5)
    assert residual == pytest.approx(bone.pools.attrs["T1_fit_residual"], rel=1e-3)


def test_without_exchange_a_pool_has_no_intrinsic_T1(shin):
    assert "T1_intrinsic" not in shin.pools
    assert (shin.pools["exchange"] == 0).all()


def test_one_exponential_is_found_exactly():
    times = np.linspace(0, 1, 50)
    assert apparent(times, recovery(times, 5.0, 1.0, 0.0, 0.0)) == pytest.approx((0.2, 0.0), abs=1e-7)


# ---- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [cortical, haversian])
@pytest.mark.parametrize(("wrong", "says"), [
    ({"porosity": -0.1}, "porosity"),
    ({"porosity": 1.2}, "porosity"),
    ({"porosity": 0.9}, "canals merge"),
    ({"porosity": math.nan}, "porosity"),
    ({"canal_diameter": 0.0}, "canal_diameter"),
    ({"thickness": -1e-3}, "thickness"),
    ({"resolution": 20e-3}, "resolution"),
    ({"resolution": 0.0}, "resolution"),
    ({"resolution": 1e-7}, "voxels"),
    ({"condition": "ill"}, "condition"),
    ({"condition": None}, "condition"),
    ({"field": 9.4}, "9.4"),
    ({"seed": -1}, "seed"),
    ({"slices": 0}, "slices"),
])
def test_bad_input_is_one_clear_line(make, wrong, says):
    with pytest.raises(InputError, match=says) as caught:
        make(**wrong)
    assert "\n" not in str(caught.value)


def test_an_unknown_shape_of_pore_is_refused():
    with pytest.raises(InputError, match="slab"):
        pores.surface_to_volume(1e-5, "slab")
    with pytest.raises(InputError, match="slab"):
        pores.slowest_rate(1e-5, 1e-5, D, "slab")


def test_the_field_of_a_cut_is_that_of_the_shaft():
    """Inside a canal along B0 the offset against the bone is a third of the contrast, however thin the cut."""
    from bonemri.simulator.constants import PROTON

    offsets = {}
    for slices in (1, 4):
        block = haversian(seed=2, resolution=20e-6, slices=slices)
        offsets[slices] = block.offset()
        canal = sum(block.pools["volume_fraction"].values[i] for i, k in enumerate(block.pools["kind"].values)
                    if k == "pore_water")
    np.testing.assert_allclose(offsets[4][1], offsets[1][0], atol=0.05)  # Hz; single precision of some 100 Hz
    contrast = tissues.value("water.chi") - tissues.value("bone.chi")
    # lacunar pores hold about a per cent of water in the bone between canals
    inside, bone = canal > 0.99, canal < 0.05
    step = offsets[4][inside].mean() - offsets[4][bone].mean()
    assert step == pytest.approx(contrast * 1e-6 / 3 * PROTON * 3.0, rel=0.05)
