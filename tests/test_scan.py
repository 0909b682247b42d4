"""Scans: physical limits, values typed independently of the equations, the labels, noise, and wrong input."""

import dataclasses
import json
import math
import re
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from bonemri import cli, phantoms
from bonemri.errors import InputError
from bonemri.simulator import equations
from bonemri.simulator.acquisition import FatSuppression, Protocol, noise, protocols
from bonemri.simulator.acquisition.scanner import Scanner
from bonemri.simulator.rungs import scannable
from bonemri.simulator.scan import add_noise, scan

SPACE = ("z", "y", "x")
PROTOCOL = protocols.ivim_marrow
# name, kind, density, T1, T2, D, D_star, kurtosis
POOLS = [
    ("water", "marrow_water", 40.0, 1.3, 0.030, 0.45e-3, np.nan, 0.8),
    ("blood", "blood", 2.0, 1.8, 0.060, np.nan, 0.030, 0.0),
    ("fat", "fat", 50.0, 0.35, 0.070, 1e-5, np.nan, 0.0),
    ("bone", "bound_water", 10.0, 0.2, 3e-4, np.nan, np.nan, 0.0),
]
SHIFT, AREA = (1.30, 4.20, 5.31), (0.8, 0.1, 0.1)


def bone(shape: tuple[int, int, int] = (2, 3, 4), **density: float) -> Any:
    """A block of marrow with a corner of air, from the table above; a density can be set by the pool's name."""
    rows = [(n, k, density.get(n, c), *rest) for n, k, c, *rest in POOLS]
    columns = list(zip(*rows, strict=True))
    maps = np.tile(np.array(columns[2])[:, None, None, None], (1, *shape))
    maps[:, 0, 0, 0] = 0.0
    per_pool = dict(zip(("T1_observed", "T2", "D", "D_star", "kurtosis"), columns[3:], strict=True))
    pools = xr.Dataset(
        {"density": (("pool", *SPACE), maps)}
        | {name: ("pool", np.array(values)) for name, values in per_pool.items()}
        | {
            "shift": (("pool", "peak"), np.array([SHIFT if k == "fat" else (4.65,) * 3 for k in columns[1]])),
            "peak_area": (("pool", "peak"), np.array([AREA if k == "fat" else (1.0, 0, 0) for k in columns[1]])),
        },
        coords={"pool": list(columns[0]), "kind": ("pool", list(columns[1])), "x": np.arange(shape[2]) * 2e-3},
        attrs={"field_strength": 3.0, "affine": np.eye(4).ravel(), "voxel_size": np.full(3, 2e-3)},
    )
    inside = maps[0] > 0
    truth = {"S0": 90.0, "f": 0.05, "D": 0.45e-3, "D_star": 0.03}
    values = {name: (SPACE, np.where(inside, value, np.nan)) for name, value in truth.items()}
    return SimpleNamespace(pools=pools, truth=xr.Dataset(values, attrs={"field_strength": 3.0}))


def witness(density: float, T1: float, T2: float, D: float, b: np.ndarray, TE: float, TR: float, K: float = 0.0) -> Any:
    """Spin echo of one pool, typed from the textbook (Bernstein, Handbook of MRI Pulse Sequences, 14.3)."""
    longitudinal = 1 - 2 * math.exp(-(TR - TE / 2) / T1) + math.exp(-TR / T1)
    return density * longitudinal * math.exp(-TE / T2) * np.exp(-b * D + (b * D) ** 2 * K / 6)


def voxel(image: xr.DataArray) -> np.ndarray:
    return image.isel(z=1, y=1, x=1).values


def one(name: str) -> Any:
    """Only one of the pools holds anything."""
    return bone(**{n: 0.0 for n, *_ in POOLS if n != name})


# -- physics


def test_pools_add_as_computed_by_hand() -> None:
    b, TE, TR = PROTOCOL["b"], 0.060, 3.0
    left = 0.8 * 0.05 + 0.1 + 0.1  # 95 % of the methylene peak is gone, glycerol and olefinic peaks stay
    expected = (
        witness(40, 1.3, 0.030, 0.45e-3, b, TE, TR, K=0.8)
        + witness(2, 1.8, 0.060, 0.030, b, TE, TR)
        + left * witness(50, 0.35, 0.070, 1e-5, b, TE, TR)
    )  # bound water: exp(-200)
    # sums of a few terms in float64, with exponentials of compiled kernels
    np.testing.assert_allclose(voxel(scan(bone(), PROTOCOL)), expected, rtol=1e-13)


def test_matched_is_the_closed_form() -> None:
    b = PROTOCOL["b"]
    expected = 90 * (0.05 * np.exp(-b * 0.03) + 0.95 * np.exp(-b * 0.45e-3))
    image = scan(bone(), PROTOCOL, rung="matched")
    np.testing.assert_allclose(voxel(image), expected, rtol=1e-13)
    assert image.attrs["equation"] == "ivim"
    assert not image.isel(z=0, y=0, x=0).any()


def test_without_relaxation_the_signal_at_b0_is_the_density() -> None:
    # TE -> 0 no decay, TR of 100 s against T1 of 1.8 s no saturation (e^-55), suppression off
    protocol = PROTOCOL.replace(TE=0.0, TR=100.0, fat_suppression=FatSuppression())
    assert voxel(scan(bone(), protocol))[0] == pytest.approx(40 + 2 + 50 + 10, rel=1e-13)


def test_bound_water_is_gone_at_the_echo() -> None:
    # T2 of .3 ms at TE 60 ms: e^-200
    assert np.all(voxel(scan(one("bone"), PROTOCOL)) < 1e-80)


def test_blood_decays_with_D_star_and_water_with_D() -> None:
    for name, rate in (("blood", 0.030), ("water", 0.45e-3)):
        signal = voxel(scan(one(name), PROTOCOL, kurtosis=False))
        np.testing.assert_allclose(signal / signal[0], np.exp(-PROTOCOL["b"] * rate), rtol=1e-12)


def test_fat_suppressed_wholly_equals_no_fat() -> None:
    suppressed, without = scan(bone(), PROTOCOL, fat_suppression=(1, 1, 1)), scan(bone(fat=0.0), PROTOCOL)
    np.testing.assert_allclose(suppressed, without, rtol=1e-14)


def test_fat_suppression_overrides() -> None:
    whole = voxel(scan(one("fat"), PROTOCOL, fat_suppression=FatSuppression()))
    for override, left in [(1.0, 0.2), (0.5, 0.6), ((0.9, 0, 1), 0.18), (FatSuppression("x", ((4, 6, 1.0),)), 0.8)]:
        signal = voxel(scan(one("fat"), PROTOCOL, fat_suppression=override))
        np.testing.assert_allclose(signal, left * whole, rtol=1e-13)
    # a protocol without suppression has no bands: a number then reaches every peak
    bare = PROTOCOL.replace(fat_suppression=FatSuppression())
    np.testing.assert_allclose(voxel(scan(one("fat"), bare, fat_suppression=0.25)), 0.75 * whole, rtol=1e-13)


def test_kurtosis_switch() -> None:
    b = PROTOCOL["b"]
    for kurtosis, K in [(True, 0.8), (False, 0.0), (0.5, 0.5), (1, 1.0)]:
        expected = witness(40, 1.3, 0.030, 0.45e-3, b, 0.06, 3.0, K=K)
        np.testing.assert_allclose(voxel(scan(one("water"), PROTOCOL, kurtosis=kurtosis)), expected, rtol=1e-13)
    # a stated kurtosis is that of extravascular water: blood keeps its own
    np.testing.assert_array_equal(scan(one("blood"), PROTOCOL, kurtosis=0.5), scan(one("blood"), PROTOCOL))


def test_b_offset_is_applied_and_coords_stay_nominal() -> None:
    image = scan(one("water"), PROTOCOL, b_offset=4.0, kurtosis=False)
    np.testing.assert_array_equal(image["b"], PROTOCOL["b"])
    np.testing.assert_allclose(voxel(image), witness(40, 1.3, 0.030, 0.45e-3, PROTOCOL["b"] + 4, 0.06, 3.0), rtol=1e-13)


def test_motion_loss_is_the_stated_fraction_at_b_1000() -> None:
    protocol = PROTOCOL.replace(b=(0, 500, 1000))
    ratio = voxel(scan(bone(), protocol, motion_loss=0.19)) / voxel(scan(bone(), protocol))
    np.testing.assert_allclose(ratio, [1, 0.9, 0.81], rtol=1e-13)


def test_properties_given_as_maps_equal_properties_given_per_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, mapped = bone(), bone()
    inside = mapped.pools["density"] > 0
    mapped.pools["D"] = mapped.pools["D"].where(inside)  # NaN in the air, where nothing asks for it
    mapped.pools["T2"] = mapped.pools["T2"] * xr.DataArray(np.ones(4), dims="x")
    expected = scan(plain, PROTOCOL)
    # the same kernel on the same numbers; only the order of the sum over pools may differ
    np.testing.assert_allclose(scan(mapped, PROTOCOL), expected, rtol=1e-15)
    for rung in ("pools", "matched"):
        monkeypatch.undo()
        whole = scan(mapped, PROTOCOL, rung=rung)
        monkeypatch.setattr(scannable, "BLOCK", 5)
        np.testing.assert_array_equal(scan(mapped, PROTOCOL, rung=rung), whole)


def test_a_map_of_T2_acts_voxel_by_voxel() -> None:
    phantom = one("water")
    T2 = np.linspace(0.02, 0.05, 4)
    phantom.pools["T2"] = phantom.pools["T2"] * 0 + xr.DataArray(T2, dims="x")
    image = scan(phantom, PROTOCOL).isel(z=1, y=1)
    for x, value in enumerate(T2):
        expected = witness(40, 1.3, value, 0.45e-3, PROTOCOL["b"], 0.06, 3.0, K=0.8)
        np.testing.assert_allclose(image.isel(x=x), expected, rtol=1e-13)


def test_pools_without_1H_echo_give_nothing() -> None:
    phantom = bone()
    phantom.pools["kind"] = ("pool", ["marrow_water", "macromolecule", "phosphorus", "mineral"])
    phantom.pools["T2"][1:] = np.nan
    np.testing.assert_array_equal(scan(phantom, PROTOCOL), scan(one("water"), PROTOCOL))


def test_echo_times_may_ride_on_b() -> None:
    points = [(0, 0.05), (100, 0.06), (600, 0.07)]
    image = scan(one("water"), PROTOCOL.replace(b=[b for b, _ in points], TE=[TE for _, TE in points]))
    expected = [witness(40, 1.3, 0.03, 0.45e-3, np.array(b), TE, 3.0, K=0.8) for b, TE in points]
    np.testing.assert_allclose(voxel(image), expected, rtol=1e-13)
    assert image["TE"].dims == ("b",)


# -- the rung matched


def test_unknowns_come_from_the_truth_then_from_values() -> None:
    expected = 90 * np.exp(-PROTOCOL["b"] * 1e-3)
    for adc in (1e-3, np.full((2, 3, 4), 1e-3)):
        image = scan(bone(), PROTOCOL, rung="matched", equation="mono_exponential", values={"adc": adc, "S0": 1.0})
        np.testing.assert_allclose(voxel(image), expected, rtol=1e-13)
    held = equations.get("mono_exponential")
    np.testing.assert_array_equal(scan(bone(), PROTOCOL, rung="matched", equation=held, values={"adc": 1e-3}), image)


def test_a_quantity_that_needs_a_protocol_comes_from_truth_at() -> None:
    phantom = bone()
    phantom.truth_at = lambda protocol: xr.Dataset({"adc": phantom.truth["D"] * protocol["TE"] / 0.06})
    image = scan(phantom, PROTOCOL, rung="matched", equation="mono_exponential")
    np.testing.assert_allclose(voxel(image), 90 * np.exp(-PROTOCOL["b"] * 0.45e-3), rtol=1e-13)


# -- labels and noise


def test_the_labels_of_a_scan() -> None:
    image = scan(bone(), "ivim_marrow", snr=40, seed=7, b_offset=1.0)
    assert image.dims == (*SPACE, "b") and image.name == "signal" and image.dtype == np.float64
    assert (image["TE"].item(), image["TR"].item(), image["field_strength"].item()) == (0.06, 3.0, 3.0)
    assert image["b"].attrs["units"] == "s/mm2" and "x" in image.coords
    attrs = image.attrs
    assert Protocol.from_json(attrs["protocol"]) == PROTOCOL
    assert (attrs["rung"], attrs["seed"], attrs["snr"]) == ("pools", 7, pytest.approx(40, rel=1e-15))
    assert json.loads(attrs["switches"]) == {"b_offset": 1.0}
    assert attrs["snr_definition"] == noise.SNR_DEFINITION and attrs["units"] and attrs["long_name"]
    np.testing.assert_array_equal(attrs["affine"], np.eye(4).ravel())
    for name, value in attrs.items():
        assert isinstance(value, str) or np.all(np.isfinite(value)), f"NetCDF cannot hold {name}"
    clean = scan(bone(), PROTOCOL)
    assert not {"snr", "noise_sd", "snr_definition"} & set(clean.attrs)


def test_a_scan_survives_netcdf(tmp_path: Any) -> None:
    image = scan(bone(), PROTOCOL, snr=20, fat_suppression=FatSuppression("x", ((0, 6, 0.9),)))
    image.to_netcdf(tmp_path / "scan.nc", engine="h5netcdf")
    back = xr.load_dataarray(tmp_path / "scan.nc", engine="h5netcdf")
    np.testing.assert_array_equal(back, image)
    assert {**back.attrs, "affine": 0, "voxel_size": 0} == {**image.attrs, "affine": 0, "voxel_size": 0}


def test_snr_is_the_stated_one_inside_and_the_floor_outside() -> None:
    phantom = bone((30, 30, 30))
    image = scan(phantom, PROTOCOL, snr=50)
    clean = scan(phantom, PROTOCOL)
    sd = image.attrs["noise_sd"]
    assert sd == pytest.approx(float(voxel(clean)[0]) / 50, rel=1e-14)
    noise_inside = (image - clean).isel(x=slice(1, None)).values.ravel()
    n = noise_inside.size
    # SNR 25 and more: Rician SD is below sd by (sd/S)^2/4 < 1e-3, so five standard errors and that
    assert abs(noise_inside.std() / sd - 1) < 5 / np.sqrt(2 * n) + 1e-3
    air = bone((40, 40, 40), water=0, blood=0, fat=0, bone=0)
    floor = scan(air, PROTOCOL, noise_sd=2.0).values.ravel()
    assert stats.kstest(floor[:50_000], stats.rayleigh(scale=2.0).cdf).pvalue > 1e-3  # deterministic: fixed seed


def test_the_same_seed_gives_the_same_scan_and_another_does_not() -> None:
    first, again, other = (scan(bone(), PROTOCOL, snr=20, seed=s) for s in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.any(first == other)


def test_noise_on_a_clean_scan_equals_a_noisy_scan() -> None:
    protocol = PROTOCOL.replace(averages=2, coils=3)
    for rung in ("pools", "matched"):
        clean = scan(bone(), protocol, rung=rung)
        before = clean.copy(deep=True)
        noisy = add_noise(clean, snr=25, seed=9)
        assert noisy.identical(scan(bone(), protocol, rung=rung, snr=25, seed=9))
        assert clean.identical(before)
    assert add_noise(clean, noise_sd=1.5, seed=9).attrs["noise_sd"] == 1.5


def test_replicates_of_a_study_come_from_spawned_seeds() -> None:
    clean = scan(bone(), PROTOCOL)
    one_seed, other = np.random.SeedSequence(1).spawn(2)
    assert not np.any(add_noise(clean, snr=9, seed=one_seed) == add_noise(clean, snr=9, seed=other))
    assert add_noise(clean, snr=9, seed=other).attrs["seed"] == "1 (1,)"


def test_noise_on_a_plain_array() -> None:
    plain = xr.DataArray(np.full((5, 2), 8.0), dims=("voxel", "b"), coords={"b": [0.0, 500.0]})
    assert add_noise(plain, snr=4).attrs["noise_sd"] == 2.0
    with pytest.raises(InputError, match="no signal to refer to"):
        add_noise(plain.drop_vars("b"), snr=4)


def test_coils_uncombined() -> None:
    protocol = PROTOCOL.replace(coils=3)
    image = scan(bone(), protocol, snr=20, combine=False)
    assert image.dims == (*SPACE, "b", "coil") and np.iscomplexobj(image)
    clean = scan(bone(), protocol, combine=False)
    assert clean.dims == image.dims
    np.testing.assert_allclose(np.sqrt((abs(clean) ** 2).sum("coil")), scan(bone(), protocol), rtol=1e-14)


def test_snr_refers_to_b0_even_where_the_protocol_has_none() -> None:
    without = scan(bone(), PROTOCOL.replace(b=(50, 900)))
    assert without.attrs["signal_reference"] == scan(bone(), PROTOCOL).attrs["signal_reference"]
    matched = scan(bone(), PROTOCOL.replace(b=(50, 900)), rung="matched")
    assert matched.attrs["signal_reference"] == pytest.approx(90, rel=1e-14)


def test_memory_stays_near_the_output() -> None:
    phantom = bone((32, 128, 128))
    for settings in ({}, {"snr": 20}, {"snr": 20, "rung": "matched"}):
        scan(bone(), PROTOCOL, **settings)  # compiles the kernels
        tracemalloc.start()
        image = scan(phantom, PROTOCOL, **settings)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # the output, one block of 2^16 voxels with its draws (three times 8 MB), and a few maps of one number a voxel
        assert peak < image.nbytes + 3e7 + 8 * 8 * image[..., 0].size


# -- with a real phantom, and wrong input


def test_a_vertebra_and_vials_are_scanned_on_both_rungs() -> None:
    for phantom in (phantoms.vertebra(resolution=4e-3), phantoms.vials()):
        for rung in ("pools", "matched"):
            image = scan(phantom, PROTOCOL, rung=rung)
            assert np.isfinite(image).all() and image.attrs["signal_reference"] > 0
            assert np.all(np.diff(image.values, axis=-1) <= 0), "signal cannot rise with b"
    with pytest.raises(InputError, match=r"field_strength is 1.5 T and the phantom was made for 3 T"):
        scan(phantom, "ivim_yeung_2004")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"rung": "engine", "b_offset": 5.0}, "switch 'b_offset' of sequence diffusion_spin_echo goes with its"),
    ({"rung": "engine", "equation": "ivim"}, "rung 'engine' sums the pools"),
    ({"rung": "scan", "motion_loss": 0.1}, "expected some of off_resonance, kurtosis, fat_suppression"),
    ({"rung": "matched", "scanner": Scanner()}, "a scanner goes with the other rungs"),
    ({"rung": "fit"}, "rung 'fit' is unknown"),
    ({"motion": 0.1}, "unknown switch 'motion' for sequence diffusion_spin_echo: expected one of kurtosis, b_offset"),
    ({"rung": "matched", "b_offset": 1.0}, "rung 'matched' is the equation alone: b_offset goes with rung 'pools'"),
    ({"equation": "ivim"}, "equation and values go with rung 'matched'"),
    ({"rung": "matched", "equation": "mono_exponential"}, "mono_exponential: the truth of the phantom has no adc"),
    ({"rung": "matched", "equation": "magic"}, "magic"),
    ({"rung": "matched", "values": {"T9": 1}}, "values: T9 is no unknown of equation ivim: expected some of S0, f"),
    (
        {"rung": "matched", "equation": "mono_exponential", "values": {"adc": [1, 2]}},
        "values: adc has shape (2,): expected a number or (2, 3, 4)",
    ),
    ({"snr": -1}, "snr is -1: expected a number above 0"),
    ({"snr": "40"}, "snr is '40': expected a number above 0"),
    ({"noise_sd": float("inf")}, "noise_sd is inf: expected a number above 0"),
    ({"snr": 10, "noise_sd": 1}, "snr is 10 and noise_sd is 1: expected one of the two"),
    ({"snr": 10, "seed": -1}, "seed is -1: expected a whole number"),
    ({"seed": 1.5}, "seed is 1.5: expected a whole number"),
    ({"b_offset": -3.0}, "b is -3: expected 0 to 100000 s/mm2"),
    ({"b_offset": "x"}, "b_offset is 'x': expected a number (s/mm2)"),
    ({"motion_loss": 1.0}, "motion_loss is 1.0: expected the fraction lost"),
    ({"kurtosis": -0.5}, "kurtosis is -0.5: expected True, False or a number from 0 up"),
    ({"fat_suppression": 95}, "fat_suppression is 95: expected efficiencies from 0 to 1"),
    ({"fat_suppression": (1, 1)}, "fat_suppression has 2 values: expected one for each of 3 fat peaks"),
    ({"protocol": "nothing"}, "unknown protocol 'nothing'"),
    ({"protocol": PROTOCOL.replace(field_strength=1.5)}, "field_strength is 1.5 T and the phantom was made for 3 T"),
    ({"protocol": PROTOCOL.replace(sequence="magic")}, "unknown sequence 'magic': expected one of diffusion_spin_echo"),
    ({"protocol": PROTOCOL.replace(averages=2), "combine": False, "snr": 9}, "complex data need 'complex'"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[str(m) for _, m in WRONG])
def test_wrong_calls_are_told_in_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        scan(bone(), **({"protocol": PROTOCOL} | arguments))
    assert "\n" not in str(caught.value)


def broken(what: str) -> Any:
    phantom = bone()
    if what == "T2":
        phantom.pools["T2"][1] = np.nan
    elif what == "D":
        phantom.pools["D"][0] = np.nan
    elif what == "spectrum":
        phantom.pools["shift"][2] = np.nan
    elif what == "density":
        phantom.pools = phantom.pools.drop_vars("density")
    elif what == "truth":
        del phantom.truth
    return phantom


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("T2", "pool blood (blood): T2 is NaN where it has density"),
        ("D", "pool water (marrow_water): D is NaN where it has density"),
        ("spectrum", "pool fat (fat): shift and peak_area are NaN: fat needs its spectrum"),
        ("density", "pools lacks density over pool and voxels"),
        ("truth", "truth is missing: expected truth and pools"),
    ],
)
def test_a_phantom_that_lacks_something_is_told(what: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        scan(broken(what), PROTOCOL)


def test_no_noise_level_can_follow_from_nothing() -> None:
    with pytest.raises(InputError, match="no signal to refer to"):
        scan(bone(water=0, blood=0, fat=0, bone=0), PROTOCOL, snr=20)
    clean = scan(bone(), PROTOCOL)
    with pytest.raises(InputError, match="expected one of the two"):
        add_noise(clean)
    with pytest.raises(InputError, match="already: noise goes on a noise-free scan"):
        add_noise(add_noise(clean, snr=9), snr=9)
    with pytest.raises(InputError, match="images of single coils"):
        add_noise(scan(bone(), PROTOCOL, combine=False), snr=9)


def test_the_apparent_fraction_of_the_truth_is_the_one_that_is_scanned() -> None:
    phantom = phantoms.vertebra(resolution=4e-3)
    no_fat = (1.0,) * phantom.pools.sizes["peak"]
    both = scan(phantom, PROTOCOL, fat_suppression=no_fat).isel(b=0)
    # b of 2e4 s/mm2 with D* of .01 mm2/s and more and D of 0: what is left is the tissue alone
    still = SimpleNamespace(pools=phantom.pools.assign(D=phantom.pools["D"] * 0), truth=phantom.truth)
    tissue = scan(still, PROTOCOL.replace(b=(0, 2e4)), fat_suppression=no_fat, kurtosis=False).isel(b=-1)
    f_app = phantom.truth_at(PROTOCOL)["f_app"]
    inside = f_app.notnull()
    assert inside.sum() > 10
    np.testing.assert_allclose((1 - tissue / both).where(inside), f_app, atol=1e-12)


# -- temperature


DIXON = protocols.dixon_marrow


@pytest.mark.parametrize("rung", ["pools", "engine", "scan"])
def test_temperature_is_one_switch_and_moves_water_alone(rung: str) -> None:
    """At 22 C water lies .163 ppm higher (20.8 Hz at 3 T) than at 37 C, and fat where it was."""
    read = {"trajectory": "cartesian", "dimensions": 3, "frequency": "x", "dwell": 1e-6}
    protocol = DIXON.replace(readout=read)
    for name, hertz in (("water", 0.01085 * 15 * 42.577478518 * 3), ("fat", 0.0)):
        warm, cold = (scan(one(name), protocol, rung=rung, **at).values[1, 1, 1] for at in ({}, {"temperature": 22.0}))
        turned = np.exp(2j * np.pi * hertz * protocol["TE"])
        # pulses of 100 us and readouts of 4 us turn it a little further than the echo time says, and the same at all
        ratio = cold / warm / turned
        np.testing.assert_allclose(ratio, np.full(ratio.shape, ratio[0]), rtol=1e-6)
        assert abs(np.angle(ratio[0])) <= 2 * np.pi * hertz * 60e-6 + 1e-12 and abs(abs(ratio[0]) - 1) < 1e-3


def test_a_stated_temperature_is_told_and_a_switch_is_not() -> None:
    """Both move water alike; the switch is what a protocol does not know, and goes before it."""
    body = bone()
    switched = scan(body, DIXON, temperature=22.0)
    stated = scan(body, DIXON.replace(temperature=22.0))
    np.testing.assert_array_equal(switched.values, stated.values)
    assert "temperature" not in switched.coords and float(stated["temperature"]) == 22.0
    assert json.loads(switched.attrs["switches"]) == {"temperature": 22.0}
    both = scan(body, DIXON.replace(temperature=22.0), temperature=37.0)
    np.testing.assert_allclose(both.values, scan(body, DIXON).values, rtol=1e-12)
    assert np.array_equal(body.pools["shift"].sel(pool="water").values, bone().pools["shift"].sel(pool="water").values)
    assert scan(body, DIXON, snr=50, seed=1, temperature=22.0).attrs["snr"] == pytest.approx(50)


@pytest.mark.parametrize("value", ["warm", 310.0, np.nan, (22.0, 23.0), True])
def test_a_temperature_that_is_none_is_told(value: Any) -> None:
    with pytest.raises(InputError, match=r"temperature is .*: expected a number from -20 to 80 \(C\)"):
        scan(bone(), DIXON, temperature=value)


def test_one_body_has_one_temperature() -> None:
    with pytest.raises(InputError, match="dixon_marrow: temperature changes from point to point: expected one"):
        scan(bone(), DIXON.replace(temperature=(37.0, 36.0, 37.0, 37.0, 37.0, 37.0)))


# -- what lies outside the field of view


def taller(n: int = 12, **readout: Any) -> tuple[Any, Protocol]:
    """Marrow of n x 8 x 8 voxels of 2 mm, and a protocol that reads 6 x 8 x 8 of them."""
    entries = {"trajectory": "cartesian", "dimensions": 3, "matrix": (6, 8, 8), "fov": (0.012, 0.016, 0.016),
               "dwell": 4e-6, **readout}  # fmt: skip
    protocol = protocols.dixon_marrow.replace(echo=(1.2e-3, 3.2e-3))
    return phantoms.marrow_block(shape=(n, 8, 8)), dataclasses.replace(protocol, readout=entries)


def emptied(bone: Any, planes: Any) -> Any:
    """A phantom without spins in some planes across z."""
    pools = bone.pools.copy(deep=True)
    at = [slice(None)] * pools["density"].ndim
    at[pools["density"].dims.index("z")] = planes
    pools["density"].values[tuple(at)] = 0.0
    return SimpleNamespace(pools=pools, truth=bone.truth)


def test_signal_that_folds_is_told_of() -> None:
    """Twice as tall as what is read: the sum of both halves, and the lengths in words; air that is outside is none."""
    bone, protocol = taller()
    found = scan(bone, protocol, rung="scan")
    assert found.attrs["folded"].startswith("folded:") and "\n" not in found.attrs["folded"]
    assert "along z it lies from -12 to 12 mm, the field of view of 12 mm from -6 to 6" in found.attrs["folded"]
    assert "along x" not in found.attrs["folded"] and "along y" not in found.attrs["folded"]
    alone = scan(emptied(bone, [0, 1, 2, 9, 10, 11]), protocol, rung="scan")
    assert "folded" not in alone.attrs
    np.testing.assert_allclose(found.sum("z"), 2 * alone.sum("z"), rtol=1e-6)
    assert "folded" not in scan(bone, protocol, rung="engine").attrs


@pytest.mark.parametrize(
    ("readout", "axes"),
    [
        ({"fov": (0.03, 0.012, 0.016)}, "y"),
        ({"fov": (0.03, 0.016, 0.012)}, "x"),  # read: the samples lie 1/fov apart, and there is no filter
        ({"fov": (0.03, 0.012, 0.012)}, "xy"),
        ({"dimensions": 2}, ""),  # slices leave out what lies beside them
        ({"trajectory": "radial_3d", "spokes": 20, "ramp": 1e-6}, ""),  # streaks, and no fold
    ],
)
def test_every_axis_in_steps_of_the_field_of_view_folds(readout: dict[str, Any], axes: str) -> None:
    bone, protocol = taller(**readout)
    if readout.get("trajectory") == "radial_3d":
        protocol = dataclasses.replace(
            protocol, readout={n: v for n, v in protocol.readout.items() if n != "dimensions"}
        )
    told = scan(bone, protocol, rung="scan").attrs.get("folded", "")
    assert [f"along {axis} it" in told for axis in "xyz"] == [axis in axes for axis in "xyz"]


def test_the_command_line_says_what_folds(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    bone, _ = taller()
    bone.to_netcdf(tmp_path / "bone.nc")
    preset = (Path(noise.__file__).parent / "presets" / "dixon_marrow.toml").read_text()
    for slab in (False, True):
        text = preset[: preset.index("matrix =")] + "matrix = [6, 8, 8]\nfov = [0.012, 0.016, 0.016]\ndwell = 4e-6\n"
        (tmp_path / "read.toml").write_text(f"{text}slab = {str(slab).lower()}\n")
        out = tmp_path / "scan.nc"
        command = ["simulate", str(tmp_path / "read.toml"), "--phantom", str(tmp_path / "bone.nc"), "--rung", "scan"]
        assert cli.run([*command, "-o", str(out)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"wrote {out}" and [line[:7] for line in lines[1:]] == ["folded:"] * (not slab)


def test_a_slab_leaves_out_what_lies_outside_it() -> None:
    """It reads as if nothing were there, along z or, where z is read, along y; half a plane in it counts half."""
    bone, protocol = taller(slab=True)
    found, alone = scan(bone, protocol, rung="scan"), scan(emptied(bone, [0, 1, 2, 9, 10, 11]), protocol, rung="scan")
    assert "folded" not in found.attrs
    np.testing.assert_allclose(found, alone, rtol=0, atol=1e-9 * float(abs(alone).max()))
    bone, protocol = taller(13, slab=True)  # the fov ends in the middle of a plane
    planes = scan(bone, protocol, rung="scan").sum("z").values
    np.testing.assert_allclose(planes, alone.sum("z"), rtol=1e-6)
    bone, protocol = taller(slab=True, frequency="z", fov=(0.03, 0.012, 0.016))
    assert "folded" not in scan(bone, protocol, rung="scan").attrs


@pytest.mark.parametrize(
    ("readout", "message"),
    [
        ({"slab": 1.0}, "readout.slab is 1.0: expected true or false"),
        (
            {"slab": True, "dimensions": 2},
            "readout.slab is true for cartesian in 2 dimensions: expected",
        ),
    ],
)
def test_a_slab_that_is_none_is_told(readout: dict[str, Any], message: str) -> None:
    bone, protocol = taller(**readout)
    with pytest.raises(InputError, match=f"^[^\n]*{re.escape(message)}[^\n]*$"):
        scan(bone, protocol, rung="scan")
