"""Water and fat through the rungs `pools`, `engine` and `scan`: every confounder is one switch, with theory's effect.

The witness is the sum of water and fat written out here; no equation of the package makes it.
"""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bonemri import phantoms
from bonemri.errors import InputError
from bonemri.simulator import tissues
from bonemri.simulator.acquisition import protocols
from bonemri.simulator.acquisition.fields import coils
from bonemri.simulator.acquisition.scanner import Scanner
from bonemri.simulator.engines import susceptibility
from bonemri.simulator.scan import scan

SHAPE = (2, 4, 8)
SIZE = (4e-3, 2e-3, 2e-3)
MEGAHERTZ = 42.577478518 * 3.0
DWELL = 1e-6
HARD = {"excitation": {"shape": "hard", "duration": 1e-6}}
READ = {"trajectory": "cartesian", "dimensions": 3, "frequency": "x", "dwell": DWELL}
ECHOES = dataclasses.replace(protocols.dixon_marrow, pulses=HARD, readout=READ)
BIPOLAR = dataclasses.replace(protocols.dixon_marrow_bipolar, pulses=HARD, readout={**READ, "polarity": "bipolar"})
RUNGS = ("pools", "engine", "scan")

WATER = {"T1": 1.2, "T2": 0.040, "R2_prime": 0.0}
FAT = {"T1": 0.35, "T2": 0.060, "R2_prime": 0.0}
WATER_PPM = 5.048 - 0.01085 * 37
LINES = ((1.30, 0.90, 5.31), (0.7, 0.2, 0.1))


def bone(pdff: Any = 0.4, water: dict | None = None, fat: dict | None = None, lines=LINES, ppm=WATER_PPM) -> Any:
    """A block of marrow without margin: `pdff` is a number or a map."""
    water, fat = WATER | (water or {}), FAT | (fat or {})
    shift, area = (np.atleast_1d(np.asarray(part, float)) for part in lines)
    nothing = np.full(shift.size - 1, np.nan)
    fraction = pdff * np.ones(SHAPE)
    pools = xr.Dataset(
        {
            "density": (("pool", "z", "y", "x"), np.stack([1 - fraction, fraction])),
            "T1_observed": ("pool", [water["T1"], fat["T1"]]),
            "T2": ("pool", [water["T2"], fat["T2"]]),
            "R2_prime": ("pool", [water["R2_prime"], fat["R2_prime"]]),
            "shift": (("pool", "peak"), np.stack([[ppm, *nothing], shift])),
            "peak_area": (("pool", "peak"), np.stack([[1.0, *nothing], area])),
        },
        coords={"pool": ["water", "fat"], "kind": ("pool", ["marrow_water", "fat"])},
        attrs={"field_strength": 3.0, "voxel_size": np.array(SIZE), "affine": np.diag([2.0, 2, 4, 1]).ravel()},
    )
    return SimpleNamespace(pools=pools, truth=xr.Dataset(attrs={"field_strength": 3.0}))


def ernst(T1: float, TR: float, flip: float) -> float:
    left = math.exp(-TR / T1)
    return math.sin(flip) * (1 - left) / (1 - math.cos(flip) * left)


def written_out(protocol=ECHOES, pdff: Any = 0.4, water=WATER, fat=FAT, lines=LINES, ppm=WATER_PPM, flip=None):
    """Signal at each echo; water at body temperature is on resonance."""
    t, TR = protocol["TE"], float(protocol["TR"])
    flip = float(protocol["flip_angle"]) if flip is None else flip
    shift, area = (np.atleast_1d(np.asarray(part, float)) for part in lines)

    def pool(of: dict, at: np.ndarray, share: np.ndarray) -> np.ndarray:
        turned = np.exp(2j * np.pi * np.outer(t, (at - WATER_PPM) * MEGAHERTZ)) @ (share / share.sum())
        return ernst(of["T1"], TR, flip) * np.exp(-t * (1 / of["T2"] + of["R2_prime"])) * turned

    one = np.ones(1)
    return (1 - np.asarray(pdff)[..., None]) * pool(WATER | water, ppm * one, one) + np.asarray(pdff)[..., None] * pool(
        FAT | fat, shift, area
    )


def tolerance(rung: str, samples: int = SHAPE[2]) -> float:
    """Of the largest signal. Engine: in half the pulse of 1 us fat turns by 2 pi 434 Hz .5 us = 1.4 mrad, and T2 takes
    1e-5. Scan: in half a readout of 8 us by 11 mrad, first order in position, and so to first order in an image.
    """
    half = {"pools": 0.0, "engine": 0.5e-6, "scan": 0.5e-6 + samples * DWELL / 2}[rung]
    return 1e-12 + 1.1 * (2 * np.pi * 434 * half + half / 10e-3)


def check(found: xr.DataArray, expected: np.ndarray, rung: str) -> None:
    np.testing.assert_allclose(
        found.values, np.broadcast_to(expected, found.shape), rtol=0, atol=tolerance(rung) * np.abs(expected).max()
    )


# ---- spectra, rates, temperature ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rung", RUNGS)
def test_many_peaks_and_a_single_one(rung):
    assert {"fat_marrow", "fat_liver", "fat_ismrm", "fat_marrow_eight", "fat_single"} <= set(tissues.spectra())
    for lines in (LINES, *(tuple(tissues.spectrum(name)) for name in tissues.spectra())):
        check(scan(bone(lines=lines), ECHOES, rung=rung), written_out(lines=lines), rung)


def test_fat_by_composition():
    """Protons counted in a triglyceride (ndb, nmidb, chain length), through a phantom's pools."""
    ndb, nmidb, chain = 2.4, 0.5, 17.3
    count = [9, 6 * (chain - 4) - 8 * ndb + 2 * nmidb, 6, 4 * (ndb - nmidb), 6, 2 * nmidb, 2, 2, 1, 2 * ndb]
    assert sum(count) == pytest.approx(6 * chain + 2 - 2 * ndb)
    ppm = [0.90, 1.30, 1.59, 2.03, 2.25, 2.77, 4.10, 4.30, 5.21, 5.31]
    fat = phantoms.marrow_block(pdff=0.999, ndb=ndb, nmidb=nmidb, chain_length=chain)
    only = fat.pools["density"].where(fat.pools["kind"] == "fat", 0.0)
    marrow = SimpleNamespace(pools=fat.pools.assign(density=only), truth=fat.truth)
    found = scan(marrow, ECHOES).values.ravel()
    turned = np.exp(2j * np.pi * np.outer(ECHOES["TE"], (np.array(ppm) - WATER_PPM) * MEGAHERTZ)) @ np.array(count)
    rate = float((1 / fat.pools["T2"] + fat.pools["R2_prime"]).where(fat.pools["kind"] == "fat").max())
    ratio = found / (turned * np.exp(-rate * ECHOES["TE"]))
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-10)
    assert abs(turned[3] / turned[0]) != pytest.approx(abs(found[3] / found[0]), rel=1e-3)  # the rate is seen


@pytest.mark.parametrize("rung", RUNGS)
def test_two_rates(rung):
    """Water of 100 1/s beside fat of 25: each decays with its own 1/T2 + R2', and R2' alone can be left out."""
    water, fat = {"T2": 0.02, "R2_prime": 50.0}, {"T2": 0.05, "R2_prime": 5.0}
    marrow = bone(water=water, fat=fat)
    check(scan(marrow, ECHOES, rung=rung), written_out(water=water, fat=fat), rung)
    none = {"R2_prime": 0.0}
    check(scan(marrow, ECHOES, rung=rung, R2_prime=False), written_out(water=water | none, fat=fat | none), rung)


@pytest.mark.parametrize("rung", RUNGS)
def test_temperature_moves_water_alone(rung):
    """At 22 C water lies .163 ppm higher, +20.8 Hz at 3 T."""
    ppm = 5.048 - 0.01085 * 22
    assert (ppm - WATER_PPM) * MEGAHERTZ == pytest.approx(20.79, abs=0.01)
    check(scan(bone(ppm=ppm), ECHOES, rung=rung), written_out(ppm=ppm), rung)


@settings(max_examples=25, deadline=None)
@given(
    pdff=st.floats(0, 1), T2=st.floats(5e-3, 0.2), R2_prime=st.floats(0, 150), warm=st.floats(15, 45),
    B0=st.floats(-600, 600),
)  # fmt: skip
def test_anything_in_range(pdff, T2, R2_prime, warm, B0):
    ppm, water = 5.048 - 0.01085 * warm, {"T2": T2, "R2_prime": R2_prime}
    found = scan(bone(pdff, water=water, ppm=ppm), ECHOES, off_resonance=B0).values
    expected = written_out(pdff=pdff, water=water, ppm=ppm) * np.exp(2j * np.pi * B0 * ECHOES["TE"])
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=0, atol=1e-11 * abs(expected).max())


# ---- field ----------------------------------------------------------------------------------------------------------


def islands() -> tuple[np.ndarray, np.ndarray]:
    """Field (Hz) and object: two islands with air between them, a step of 200 Hz and ends of +-600 Hz."""
    field = np.full(SHAPE, np.nan)
    field[:, :, :3] = np.array([-600.0, -400.0, -200.0])
    field[:, :, 5:] = np.array([200.0, 400.0, 600.0])
    field[1, 2:, :3] += 200.0
    return field, np.isfinite(field)


@pytest.mark.parametrize("rung", ["pools", "engine"])
def test_steps_and_islands_of_the_field(rung):
    field, inside = islands()
    marrow = bone()
    marrow.pools["density"] = marrow.pools["density"] * inside
    found = scan(marrow, ECHOES, rung=rung, scanner=Scanner(b0=field)).values
    expected = written_out() * np.exp(2j * np.pi * np.nan_to_num(field)[..., None] * ECHOES["TE"])
    # half a pulse at 1034 Hz instead of 434
    np.testing.assert_allclose(found[inside], expected[inside], rtol=0, atol=3 * tolerance(rung) * abs(expected).max())
    assert not found[~inside].any()


def blurred(image: np.ndarray) -> np.ndarray:
    """What an image of as many voxels shows of voxels that are boxes: sinc(k x edge) along each axis."""
    for axis, n in enumerate(SHAPE):
        weight = np.sinc(np.fft.fftfreq(n)).reshape([-1 if a == axis else 1 for a in range(image.ndim)])
        image = np.fft.ifft(np.fft.fft(image, axis=axis) * weight, axis=axis)
    return image


def test_steps_and_islands_on_rung_scan():
    """The phase at TE is that of the field, whatever its steps; the image of it has the resolution of an image."""
    field, inside = islands()
    marrow = bone()
    marrow.pools["density"] = marrow.pools["density"] * inside
    found = scan(marrow, ECHOES, rung="scan", scanner=Scanner(b0=field)).values
    expected = written_out() * np.exp(2j * np.pi * np.nan_to_num(field)[..., None] * ECHOES["TE"])
    # first order: 2 pi (600 + 434) Hz x the 4 us from the middle of the readout to its end
    most = 2 * np.pi * 1034 * (SHAPE[2] / 2 * DWELL + 0.5e-6) * np.abs(expected).max()
    np.testing.assert_allclose(found, blurred(expected * inside[..., None]), rtol=0, atol=most)


# ---- phases ---------------------------------------------------------------------------------------------------------


def ratio(rung: str, protocol=ECHOES, marrow: Any = None, **confounder: Any) -> np.ndarray:
    """What a confounder does: the scan with it over that without."""
    marrow = marrow or bone()
    scanner = {"scanner": confounder.pop("scanner")} if "scanner" in confounder else {}
    found = scan(marrow, protocol, rung=rung, **scanner, **confounder).values
    return found / scan(marrow, protocol, rung=rung).values


@pytest.mark.parametrize("rung", RUNGS)
def test_phases_of_pulse_and_echoes(rung):
    """Each is one switch, the same on every rung, and turns what it names exactly."""
    found = ratio(rung, initial_phase=0.7)
    np.testing.assert_allclose(found, np.broadcast_to(np.exp(0.7j), found.shape), rtol=1e-9)
    found = ratio(rung, first_echo_phase=0.15)
    np.testing.assert_allclose(np.angle(found), np.broadcast_to([0.15, 0, 0, 0, 0, 0], found.shape), atol=1e-9)
    found = ratio(rung, BIPOLAR, bipolar_phase=-0.2)
    np.testing.assert_allclose(np.angle(found), np.broadcast_to([0, -0.2] * 6, found.shape), atol=1e-9)
    together = ratio(rung, BIPOLAR, initial_phase=1.0, first_echo_phase=0.15, bipolar_phase=-0.2)
    expected = [1.15, 0.8, *[1.0, 0.8] * 5]
    np.testing.assert_allclose(np.angle(together), np.broadcast_to(expected, together.shape), atol=1e-9)
    with pytest.raises(InputError, match="bipolar_phase is 0.1: expected 0, as protocol"):
        scan(bone(), ECHOES, rung=rung, bipolar_phase=0.1)


def test_echoes_of_two_trains_are_counted_in_each():
    trains = dataclasses.replace(protocols.dixon_marrow_interleaved, pulses=HARD)
    for rung in ("pools", "engine"):
        found = np.angle(ratio(rung, trains, first_echo_phase=0.1))
        np.testing.assert_allclose(found, np.broadcast_to([0.1, 0.1] + [0.0] * 6, found.shape), atol=1e-9)


@pytest.mark.parametrize("rung", RUNGS)
def test_a_complex_transmit_field(rung):
    """Its size is that of the flip angle, its phase the initial phase."""
    B1 = (0.8 + 0.02 * np.arange(8)) * np.exp(0.3j * np.arange(8)) * np.ones(SHAPE)
    found = scan(bone(), ECHOES, rung=rung, scanner=Scanner(b1=B1)).values
    angle = float(ECHOES["flip_angle"])
    of_x = [written_out(flip=angle * abs(B1[0, 0, x])) * np.exp(0.3j * x) for x in range(SHAPE[2])]
    expected = np.broadcast_to(np.stack(of_x), found.shape)
    expected = blurred(expected) if rung == "scan" else expected
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance(rung) * np.abs(expected).max())


def test_a_closed_form_without_b1_says_so():
    maps = Scanner(b1=np.ones(SHAPE))
    with pytest.raises(InputError, match="sequence spin_echo_dixon has no closed form for a map of B1: expected rung"):
        scan(bone(), protocols.dixon_spin_echo, scanner=maps)


def test_a_phase_that_turns_with_the_readout_gradient():
    found = np.angle(ratio("scan", BIPOLAR, scanner=Scanner(odd_even_phase=0.12)))
    np.testing.assert_allclose(found, np.broadcast_to([0.12, -0.12] * 6, found.shape), atol=1e-9)


def test_a_gradient_that_comes_late():
    """Late by tau, a gradient of 1/(gamma FOV dwell) shifts k by tau/(dwell FOV): a phase linear along x, of opposite
    sign in odd and even echoes.
    """
    tau, n = 0.05e-6, SHAPE[2]
    found = np.angle(ratio("scan", BIPOLAR, scanner=Scanner(delays=(tau, 0.0, 0.0))))
    x = (np.arange(n) - (n - 1) / 2) / n  # of the FOV
    expected = np.multiply.outer(2 * np.pi * tau / DWELL * x, [1.0, -1.0] * 6)
    sign = np.sign(found[0, 0, -1, 0])  # of the first echo, whatever its sense
    # a shift by a part of a sample leaks at the edge of the object, in second order of 2 pi x .05 / 2
    inner = slice(2, n - 2)
    np.testing.assert_allclose(
        found[:, :, inner], np.broadcast_to(sign * expected, found.shape)[:, :, inner], atol=0.025
    )
    assert np.abs(expected[inner]).max() > 0.05


def test_concomitant_fields():
    """Their phase goes with the square of the gradient over B0, and with the square of the place off the isocentre.

    Bernstein et al. 1998, doi:10.1002/mrm.1910390218: a gradient along x has the field (G z)^2 / 2 B0.
    """
    wide = bone()
    wide.pools.attrs["voxel_size"] = np.array([0.10, 2e-3, 2e-3])  # two slices, 5 cm off the isocentre
    tall = bone()
    tall.pools.attrs["voxel_size"] = np.array([0.20, 2e-3, 2e-3])
    slow = dataclasses.replace(ECHOES, readout={**READ, "dwell": 10e-6})
    phase = [turn_of_echoes(slow, marrow) for marrow in (wide, tall)]
    assert np.abs(phase[0]).max() > 1e-3
    # at twice the distance four times the phase; the terms of the other gradients go with other places
    middle = (slice(None), slice(1, 3), slice(3, 5))
    np.testing.assert_allclose(phase[1][middle], 4 * phase[0][middle], rtol=0.05, atol=2e-4)
    half = SimpleNamespace(pools=wide.pools.assign_attrs(field_strength=1.5), truth=xr.Dataset())
    low = turn_of_echoes(slow.replace(field_strength=1.5), half)
    np.testing.assert_allclose(low[middle], 2 * phase[0][middle], rtol=0.05, atol=2e-4)


def turn_of_echoes(protocol, marrow) -> np.ndarray:
    """Phase (rad) of each echo by concomitant fields, without jumps from echo to echo."""
    return np.unwrap(np.angle(ratio("scan", protocol, marrow, scanner=Scanner(concomitant=True))))


@pytest.mark.parametrize("kind", ["monopolar", "bipolar", "two trains"])
def test_concomitant_fields_of_earlier_echoes_stay(kind):
    """Echo n has met n readouts, and of a monopolar train as many ways back: that phase is written out here.

    The field of a gradient along x is (G z)^2 / 2 B0. A readout of 8 samples has the gradient G = 1/(gamma FOV dwell)
    for 8 dwells and two ramps of 100 us, which count a third each; the gentlest way back in the time tau that is left
    has the area of the readout over tau.
    """
    dwell, ramp, n = 10e-6, 100e-6, SHAPE[2]
    protocol = {"monopolar": ECHOES, "bipolar": BIPOLAR, "two trains": protocols.dixon_marrow_interleaved}[kind]
    read = {**protocol.readout, **READ, "dwell": dwell, "matrix": SHAPE, "fov": (0.2, 8e-3, 16e-3)}
    protocol = dataclasses.replace(protocol, pulses=HARD, readout=read)
    tall = bone()
    tall.pools.attrs["voxel_size"] = np.array([0.10, 2e-3, 2e-3])  # two slices, 5 cm off the isocentre
    found = turn_of_echoes(protocol, tall)[0, 1, 3]
    gamma = MEGAHERTZ * 1e6 / 3.0
    G = 1 / (gamma * 16e-3 * dwell)
    shots = np.broadcast_to(protocol.table.get("shot", 0), protocol.points)
    spacing = np.diff(protocol["TE"][shots == shots[0]])[0]
    left = spacing - n * dwell - 2 * ramp
    squares = G**2 * (n * dwell + 2 * ramp / 3)
    squares += 0 if kind == "bipolar" else (G * (n * dwell + ramp)) ** 2 / left
    expected = 2 * np.pi * gamma * 0.05**2 / (2 * 3.0) * squares * np.array([(shots[:p] == s).sum() for p, s in
                                                                            enumerate(shots)])  # fmt: skip
    # half of a readout more or less in bipolar echoes, as their samples lie half a dwell beside the middle; along y and
    # x the place in the slice adds (1 mm / 5 cm)^2 at most
    np.testing.assert_allclose(found - found[0], expected, rtol=2e-3, atol=2e-3 + 2 * np.pi * gamma * 0.05**2 / 6 *
                               G**2 * dwell * (kind == "bipolar"))  # fmt: skip
    assert expected[-1] > 1


def test_a_train_without_time_for_the_way_back_is_told():
    tight = dataclasses.replace(ECHOES, readout={**READ, "dwell": 0.9e-3 / 8}).replace(echo=(2e-3, 3.1e-3), TR=0.01)
    with pytest.raises(InputError, match="leave no time to go back to the start of a line"):
        scan(bone(), tight, rung="scan", scanner=Scanner(concomitant=True))


# ---- saturation, noise, coils ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("degrees", [3.0, 20.0])
def test_saturation_by_flip_angle(rung, degrees):
    """Fat of short T1 is saturated less: PDFF as the amplitudes show it rises with the flip angle."""
    protocol = ECHOES.replace(flip_angle=math.radians(degrees))
    check(scan(bone(), protocol, rung=rung), written_out(protocol), rung)
    flip, TR = math.radians(degrees), float(protocol["TR"])
    F, W = 0.4 * ernst(0.35, TR, flip), 0.6 * ernst(1.2, TR, flip)
    assert (F / (W + F) - 0.4 > 0.1) == (degrees > 10)


@pytest.mark.parametrize("rung", RUNGS)
def test_noise_is_complex_white_and_of_its_stated_size(rung):
    clean = scan(bone(), ECHOES, rung=rung)
    noise = [scan(bone(), ECHOES, rung=rung, snr=20, seed=seed) - clean for seed in range(8)]
    level = scan(bone(), ECHOES, rung=rung, snr=20).attrs["noise_sd"]
    # S_ref is |S| at TE 0, where all lines are in phase
    flip, TR = float(ECHOES["flip_angle"]), float(ECHOES["TR"])
    assert 20 * level == pytest.approx(0.6 * ernst(1.2, TR, flip) + 0.4 * ernst(0.35, TR, flip), rel=1e-9)
    values = np.stack([n.values for n in noise])
    parts = np.concatenate([values.real.ravel(), values.imag.ravel()]) / level
    low, high = stats.chi2.ppf([5e-4, 1 - 5e-4], parts.size)
    assert low < (parts**2).sum() < high
    pair = np.corrcoef(values.real.ravel(), values.imag.ravel())[0, 1]
    assert abs(pair) < 4 / math.sqrt(values.size)


def test_coils_leave_the_phase_of_water_and_fat():
    """Combined with known sensitivities the image is that of one coil; each alone has the phase of its sensitivity."""
    rng = np.random.default_rng(1)
    maps = np.stack([(0.5 + a) * np.exp(2j * np.pi * b) * np.ones(SHAPE) for a, b in rng.uniform(0, 1, (4, 2))])
    receiving = coils.Coils(maps, np.eye(4))
    known = dataclasses.replace(ECHOES, readout={**READ, "combination": "optimal"})
    one = scan(bone(), known, rung="scan").values
    together = scan(bone(), known, rung="scan", scanner=Scanner(coils=receiving)).values
    np.testing.assert_allclose(together / one, (together / one).flat[0], rtol=1e-9)
    alone = scan(bone(), known, rung="scan", scanner=Scanner(coils=receiving), combine=False).values
    np.testing.assert_allclose(alone / one[..., None], np.broadcast_to(maps[:, 0, 0, 0], alone.shape), rtol=1e-9)


# ---- R2' that comes of structure ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spongy():
    """Trabecular bone of .08 mm voxels with its field, and the factor to voxels of about a millimetre."""
    fine = phantoms.trabecular(size=2.4e-3, resolution=80e-6, bvtv=0.2, pdff=0.4, seed=3)
    return fine, fine.offset(direction=(1.0, 0.0, 0.0)), 10


def test_the_field_of_structure_makes_R2_prime(spongy):
    """The fine phantom scanned in its own field and averaged over coarse voxels is the coarse phantom without R2' times
    the coherence of its spins: two ways that share no code but the field.
    """
    fine, offset, factor = spongy
    count = tuple(n // factor for n in offset.shape)
    cut = tuple(slice(0, n * factor) for n in count)
    density = fine.pools["density"].sel(pool=(fine.pools["kind"] == "fat").values).values[0]
    only = fine.pools["density"].where(fine.pools["kind"] == "fat", 0.0)  # one pool: all spins alike
    marrow = SimpleNamespace(pools=fine.pools.assign(density=only), truth=fine.truth)
    long = dataclasses.replace(protocols.dixon_marrow_bipolar, pulses=HARD)
    seen = scan(marrow, long, scanner=Scanner(b0=offset)).values[cut]
    blocks = seen.reshape(count[0], factor, count[1], factor, count[2], factor, -1).mean(axis=(1, 3, 5))
    plain = scan(marrow, long).values[cut]
    mean = plain.reshape(count[0], factor, count[1], factor, count[2], factor, -1).mean(axis=(1, 3, 5))
    coherence = susceptibility.dephasing(offset[cut], density[cut], factor, long["TE"])
    np.testing.assert_allclose(blocks, mean * coherence, rtol=0, atol=1e-9 * np.abs(mean).max())
    size = np.abs(coherence)
    assert size[..., -1].max() < 0.97  # it does dephase


def test_structure_on_rung_scan(spongy):
    """The fine phantom in its own field, read with coarse voxels: the fine image, of whose k-space little is read."""
    fine, offset, factor = spongy
    count = tuple(n // factor for n in offset.shape)
    cut = {dim: slice(0, n * factor) for dim, n in zip("zyx", count, strict=True)}
    only = fine.pools["density"].where(fine.pools["kind"] == "fat", 0.0)
    marrow = SimpleNamespace(pools=fine.pools.assign(density=only).isel(cut), truth=fine.truth.isel(cut))
    field = offset[tuple(cut.values())]
    fov = [n * 80e-6 for n in field.shape]
    read = {"trajectory": "cartesian", "dimensions": 3, "frequency": "x", "dwell": DWELL, "matrix": count, "fov": fov}
    late = dataclasses.replace(protocols.dixon_marrow_bipolar, pulses=HARD, readout=read).replace(echo=(1e-3, 12e-3))
    found = scan(marrow, late, rung="scan", scanner=Scanner(b0=field)).values
    image = scan(marrow, late, scanner=Scanner(b0=field)).values
    for axis, (n, m) in enumerate(zip(field.shape, count, strict=True)):
        k = (np.arange(m) - m // 2) / n  # cycles a fine voxel
        place, coarse = np.arange(n) - (n - 1) / 2, (np.arange(m) - (m - 1) / 2) * factor
        way = (np.exp(2j * np.pi * np.outer(coarse, k)) * np.sinc(k)) @ np.exp(-2j * np.pi * np.outer(k, place)) / n
        image = np.moveaxis(np.tensordot(way, image, axes=(1, axis)), 0, axis)
    # during the 3 us of the readout the spectrum of fat and the field, some 600 Hz together, turn by 2 pi 600 x 1.5 us
    np.testing.assert_allclose(found, image, rtol=0, atol=2 * np.pi * 600 * 2.0e-6 * np.abs(image).max())
    kept = np.abs(found[..., 1] / found[..., 0])
    decay = float((1 / fine.pools["T2"]).where(fine.pools["kind"] == "fat").max())
    assert kept.max() < np.exp(-decay * 11e-3)


def test_the_fitted_rate_depends_on_the_echo_train(spongy):
    """At first the loss is quadratic, (2 pi)^2 var(offset) t^2 / 2: early echoes show a lower rate than late ones."""
    fine, offset, factor = spongy
    cut = tuple(slice(0, n // factor * factor) for n in offset.shape)
    weight = fine.pools["density"].sum("pool").values[cut]
    early, late = np.array([0.5e-3, 1.0e-3]), np.array([4e-3, 8e-3])
    whole = tuple(s.stop for s in cut)

    def rate(times: np.ndarray) -> np.ndarray:
        size = np.abs(susceptibility.dephasing(offset[cut], weight, whole, times, remove_linear=True))
        return np.log(size[..., 0] / size[..., 1]).ravel() / np.diff(times)

    assert rate(early)[0] < 0.7 * rate(late)[0]
    short = 2e-5
    loss = 1 - np.abs(susceptibility.dephasing(offset[cut], weight, whole, [short])).ravel()[0]
    mean = np.average(offset[cut], weights=weight)
    var = np.average((offset[cut] - mean) ** 2, weights=weight)
    assert loss == pytest.approx((2 * np.pi * short) ** 2 * var / 2, rel=1e-2)


# ---- spin-echo-shifted Dixon ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rung", ["pools", "engine"])
def test_a_shifted_spin_echo(rung):
    """Fat turns for the shift alone, from -2 to 3 ms; R2' acts for as long, on both sides of the echo."""
    water, fat = {"R2_prime": 60.0}, {"R2_prime": 20.0}
    marrow = bone(water=water, fat=fat)
    pulses = {name: {"shape": "hard", "duration": 1e-6} for name in ("excitation", "refocusing")}
    protocol = dataclasses.replace(protocols.dixon_spin_echo, pulses=pulses).replace(time=(-2e-3, 0.0, 1.15e-3, 3e-3))
    t, TE = protocol["time"], float(protocol["TE"])
    TR = float(protocol["TR"])
    shift, area = map(np.array, LINES)

    def pool(amount, of, turned):
        saved = 1 - 2 * math.exp(-(TR - TE / 2) / of["T1"]) + math.exp(-TR / of["T1"])
        return amount * saved * np.exp(-(TE + t) / of["T2"] - np.abs(t) * of["R2_prime"]) * turned

    turning = np.exp(2j * np.pi * np.outer(t, (shift - WATER_PPM) * MEGAHERTZ)) @ area
    expected = pool(0.6, WATER | water, 1.0) + pool(0.4, FAT | fat, turning)
    found = scan(marrow, protocol, rung=rung).values
    # pulses of 1 us turn fat by 1.4 mrad each; the closed form's recovery is that of instantaneous pulses
    most = (1e-12 if rung == "pools" else 8e-3) * np.abs(expected).max()
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=0, atol=most)
