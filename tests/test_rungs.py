"""Rungs `engine` and `scan`: they meet the closed form in its limit, part from it as theory says, and take noise."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from bonemri import phantoms
from bonemri.errors import InputError
from bonemri.simulator import playing, sequences
from bonemri.simulator.acquisition import protocols
from bonemri.simulator.acquisition.fields import coils
from bonemri.simulator.acquisition.fields.imperfections import EddyCurrent
from bonemri.simulator.acquisition.protocol import Protocol
from bonemri.simulator.acquisition.scanner import Scanner
from bonemri.simulator.constants import PROTON
from bonemri.simulator.field_dependence import over_fields
from bonemri.simulator.scan import add_noise, scan

SPACE = ("z", "y", "x")
HARD = {"excitation": {"shape": "hard", "duration": 1e-6}}  # short against every T2 here: 1 us / .3 ms
ECHOES = protocols.dixon_marrow.replace(pulses=HARD, readout={})
READ = {"trajectory": "cartesian", "dimensions": 2, "dwell": 5e-6}


def block(
    shape: tuple[int, int, int] = (1, 24, 24),
    water: Any = 1.0,
    fat: Any = 0.0,
    shift: tuple[float, ...] = (1.3,),
    **more: Any,
) -> Any:
    """A slab of water and fat on a margin of air, 2 mm voxels."""
    inside = np.zeros(shape)
    inside[:, shape[1] // 4 : 3 * shape[1] // 4, shape[2] // 4 : 3 * shape[2] // 4] = 1.0
    peaks = max(len(shift), 1)
    water_line = np.array([4.64655] + [np.nan] * (peaks - 1)), np.array([1.0] + [0.0] * (peaks - 1))
    pools = xr.Dataset(
        {
            "density": (("pool", *SPACE), np.stack([water * inside, fat * inside])),
            "T1_observed": ("pool", [1.2, 0.35]),
            "T2": ("pool", [0.04, 0.06]),
            "R2_prime": ("pool", [0.0, 0.0]),
            "D": ("pool", [1e-3, 1e-5]),
            "shift": (("pool", "peak"), np.stack([water_line[0], np.array(shift)])),
            "peak_area": (("pool", "peak"), np.stack([water_line[1], np.full(peaks, 1 / peaks)])),
        }
        | {name: ("pool", value) for name, value in more.items()},
        coords={"pool": ["water", "fat"], "kind": ("pool", ["marrow_water", "fat"])},
        attrs={"field_strength": 3.0, "voxel_size": np.full(3, 2e-3), "affine": np.diag([2.0, 2, 2, 1]).ravel()},
    )
    return SimpleNamespace(pools=pools, truth=xr.Dataset(attrs={"field_strength": 3.0}))


# -- engine


@pytest.mark.parametrize("name", ["dixon_marrow", "ute_3d_radial", "dixon_spin_echo", "mrs_steam_marrow"])
def test_the_engine_meets_the_closed_form_where_pulses_are_short(name: str) -> None:
    protocol = protocols.get(name)
    short = {"duration": 1e-6, "shape": "hard"}
    protocol = dataclasses.replace(protocol, pulses=dict.fromkeys(sequences.get(protocol.sequence).pulses, short))
    bone = block(fat=0.7, shift=(1.3, 4.2), R2_prime=[15.0, 5.0])
    engine, closed = (scan(bone, protocol, rung=rung).values for rung in ("engine", "pools"))
    # in half a pulse of 1 us fat turns by 2 pi 434 Hz .5 us = 1.4 mrad; T2 of 40 ms takes 1e-5
    np.testing.assert_allclose(engine, closed, rtol=0, atol=3e-3 * np.abs(closed).max())
    assert np.abs(engine).max() > 0


def test_a_pulse_as_long_as_T2_loses_what_sussman_says() -> None:
    T2, tau, angle = 0.4e-3, 0.4e-3, np.deg2rad(10)
    bone = block(T2=[T2, 0.06], fat=0.0)
    protocol = dataclasses.replace(
        protocols.ute_3d_radial,
        table={"echo": (1e-3,)},
        constants={"TR": 8.0, "flip_angle": float(angle)},
        pulses={"excitation": {"shape": "hard", "duration": tau}},
    )
    seen = np.abs(scan(bone, protocol, rung="engine").values).max()
    # Sussman et al., Magn Reson Med 40:890 (1998): rectangular pulse; TR of 8 s leaves e^-6.7 of 1.5 % of saturation
    half = tau / (2 * T2)
    root = np.sqrt(complex(angle**2 - half**2))
    expected = np.exp(-half) * angle * np.real(np.sin(root) / root) * np.exp(-(1e-3 - tau / 2) / T2)
    assert seen == pytest.approx(expected, rel=1e-4)


def test_R2_prime_acts_until_it_is_refocused() -> None:
    loss = []
    for name in ("dixon_marrow", "dixon_spin_echo"):
        protocol = protocols.get(name)
        with_it, without = (
            scan(block(R2_prime=[40.0, 0]), protocol, rung="engine", R2_prime=on) for on in (True, False)
        )
        loss.append(np.abs(with_it.values).max((0, 1, 2)) / np.abs(without.values).max((0, 1, 2)))
    np.testing.assert_allclose(loss[0], np.exp(-40 * protocols.dixon_marrow["TE"]), rtol=1e-12)
    assert loss[1].max() == pytest.approx(1.0, abs=1e-12)  # the point that is a spin echo
    assert loss[1].min() < 1


def test_maps_of_the_scanner_act_voxel_by_voxel() -> None:
    bone, angle = block(fat=0.5), float(ECHOES["flip_angle"])
    shape = (1, 24, 24)
    B1 = np.linspace(0.6, 1.3, 576).reshape(shape)
    b0 = np.linspace(-80, 80, 576).reshape(shape)
    maps = {rung: scan(bone, ECHOES, rung=rung, scanner=Scanner(b0=b0, b1=B1)).values for rung in ("pools", "engine")}
    scale = np.abs(maps["pools"]).max()
    np.testing.assert_allclose(maps["engine"], maps["pools"], rtol=0, atol=3e-3 * scale)
    y, x = 12, 9
    alone = scan(bone, ECHOES.replace(flip_angle=angle * B1[0, y, x]), rung="pools", off_resonance=float(b0[0, y, x]))
    np.testing.assert_allclose(maps["pools"][0, y, x], alone.values[0, y, x], rtol=1e-12)


def test_exchange_transfers_the_saturation_of_collagen() -> None:
    plain, exchanging = (phantoms.cortical(resolution=4e-3, exchange=on) for on in (False, True))
    bone_voxel = dict(
        zip(
            SPACE,
            np.unravel_index(
                np.argmax(plain.pools["density"].sel(pool="cortical_bound_water").values),
                plain.pools["density"].shape[1:],
            ),
            strict=True,
        )
    )
    ratio = []
    for bone in (plain, exchanging):
        only = bone.pools["density"].where(bone.pools["pool"].isin(["cortical_bound_water", "cortical_collagen"]), 0.0)
        seen = SimpleNamespace(pools=bone.pools.assign(density=only), truth=bone.truth)
        far, near = (
            np.abs(
                scan(seen, protocols.ute_mt.replace(offset=(f,), power=(17.45,)), rung="engine")
                .isel(bone_voxel)
                .values[0]
            )
            for f in (50e3, 5e3)
        )
        ratio.append(near / far)
    # 17.45 rad at 5 kHz leave bound water alone almost as it is, and saturate collagen, which takes water with it
    assert ratio[1] < ratio[0] - 0.05


def test_blood_of_the_engine_is_not_exponential_in_b() -> None:
    bone = phantoms.marrow_block()
    engine, closed = (scan(bone, protocols.ivim_marrow, rung=rung) for rung in ("engine", "pools"))
    assert engine.dtype == float and engine.sizes == closed.sizes
    b = protocols.ivim_marrow["b"]
    left = [s.values.ravel() / s.values.ravel()[0] for s in (engine, closed)]
    assert np.all(np.diff(left[0]) < 0)
    # tissue is the same on both rungs; between them lies what flow adds to exp(-b D*): a little, not none
    difference = np.abs(left[0] - left[1])[b > 0]
    assert 1e-4 < difference.max() < 0.03


# -- scan


def read(**entries: Any) -> Protocol:
    return dataclasses.replace(ECHOES, readout={**READ, **entries})


def test_an_image_of_a_slab_is_the_slab() -> None:
    bone = block(fat=0.5)
    image, engine = (scan(bone, read(), rung=rung) for rung in ("scan", "engine"))
    assert image.dims == engine.dims and image.shape == engine.shape
    inner = (0, slice(8, 16), slice(8, 16))
    # the sinc of a voxel damps the highest frequencies, which rings at the edges alone;
    # fat moves along the line by 434 Hz 24 x 5 us = .05 pixels, and T2 of 40 ms decays by +-.15 % over the line
    scale = np.abs(engine.values).max()
    np.testing.assert_allclose(image.values[inner].mean((0, 1)), engine.values[inner].mean((0, 1)), atol=0.01 * scale)
    assert image.attrs["rung"] == "scan" and image.attrs["signal_reference"] > 0


def test_fat_moves_along_the_line_as_its_frequency_says() -> None:
    water, fat = ({"water": 1.0, "fat": 0.0}, {"water": 0.0, "fat": 1.0})
    protocol = dataclasses.replace(read(dwell=1e-4), table={"echo": (3e-3,)})  # 24 samples: 416.7 Hz a pixel
    centre = []
    for pools in (water, fat):
        image = np.abs(scan(block(**pools), protocol, rung="scan").values[0, :, :, 0]) ** 2
        centre.append((image.sum(0) @ np.arange(24)) / image.sum())
    shift = (1.3 - 4.64655) * 1e-6 * PROTON * 3.0 * 24 * 1e-4
    assert centre[1] - centre[0] == pytest.approx(shift, abs=0.05)


def test_noise_of_an_image_has_the_level_that_was_asked() -> None:
    bone = block()
    for trajectory in (READ, {"trajectory": "radial_2d", "dwell": 5e-6, "spokes": 60, "samples": 40}):
        protocol = dataclasses.replace(ECHOES, readout=trajectory)
        clean = scan(bone, protocol, rung="scan")
        noisy = scan(bone, protocol, rung="scan", noise_sd=0.02, seed=5)
        noise = (noisy - clean).values
        n = noise.size  # 3456 complex numbers; gridding correlates neighbours, so that a quarter of them counts
        sd = np.sqrt(np.mean(np.abs(noise) ** 2) / 2)
        assert sd == pytest.approx(0.02, rel=4 / np.sqrt(n / 4))
        assert noisy.attrs["noise_sd"] == 0.02
        assert noisy.attrs["snr"] == pytest.approx(noisy.attrs["signal_reference"] / 0.02)
        again = scan(bone, protocol, rung="scan", noise_sd=0.02, seed=5)
        np.testing.assert_array_equal(again, noisy)


def test_coils_keep_the_SNR_and_combine_without_bias() -> None:
    bone = block(shape=(1, 16, 16))
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:16, :16]
    maps = np.stack([np.exp(-((y - a) ** 2 + (x - b) ** 2) / 300 + 1j * c) for a, b, c in rng.uniform(0, 15, (4, 3))])
    psi = 0.2 * np.ones((4, 4)) + 0.8 * np.eye(4)
    scanner = Scanner(coils=coils.Coils(maps[:, None], psi))
    protocol = dataclasses.replace(read(), coils=4, combination="optimal", table={"echo": (2e-3,)}, averaging="complex")
    one = dataclasses.replace(protocol, coils=1)
    alone = scan(bone, one, rung="scan").values
    together = scan(bone, protocol, rung="scan", scanner=scanner).values
    inside = np.abs(alone) > 0.5 * np.abs(alone).max()
    # the smooth maps act before the object is cut to its boxes: ringing at the edges differs by a per cent
    np.testing.assert_allclose(together[inside], alone[inside], rtol=0.05)
    noise = [
        scan(bone, protocol, rung="scan", scanner=scanner, noise_sd=1e-3, seed=s).values - together for s in range(12)
    ]
    expected = 1e-3 / np.sqrt(np.einsum("cyx,cd,dyx->yx", maps.conj(), np.linalg.inv(psi), maps).real)[None, :, :, None]
    z = np.array(noise) / expected
    # 12 x 256 complex samples of unit SD per channel
    assert stats.chi2.cdf((np.abs(z) ** 2).sum(), 2 * z.size) == pytest.approx(0.5, abs=0.4999)
    single = scan(bone, protocol, rung="scan", scanner=scanner, combine=False)
    assert single.dims[-1] == "coil" and single.sizes["coil"] == 4


def test_sense_and_adaptive_combination_read_the_same_object() -> None:
    bone = block(shape=(1, 16, 16))
    scanner = Scanner(coils=coils.uniform(2, (1, 16, 16)))
    base = dataclasses.replace(read(), combination="optimal", averaging="complex", table={"echo": (2e-3,)})
    plain = scan(bone, base, rung="scan", scanner=scanner).values
    for entries in ({"reconstruction": "sense", "tikhonov": 1e-9}, {"combination": "adaptive"}):
        protocol = dataclasses.replace(base, readout={**READ, **entries})
        other = scan(bone, protocol, rung="scan", scanner=scanner).values
        np.testing.assert_allclose(np.abs(other), np.abs(plain), atol=2e-3 * np.abs(plain).max())


def test_an_echo_planar_image_is_distorted_and_has_its_ghost() -> None:
    protocol = dataclasses.replace(
        protocols.ivim_marrow.replace(b=(0.0,), TE=0.08),
        readout={"trajectory": "epi", "dwell": 5e-6, "echo_spacing": 0.5e-3},
    )
    bone, shape = block(), (1, 24, 24)
    plain = scan(bone, protocol, rung="scan").values[0, :, :, 0]
    moved = scan(bone, protocol, rung="scan", scanner=Scanner(b0=np.full(shape, 3 / (24 * 0.5e-3)))).values[0, :, :, 0]
    # a pixel along phase encoding is 1/(24 x .5 ms) = 83 Hz wide
    lag = np.argmax([np.sum(np.roll(plain, k, axis=0) * moved) for k in range(-6, 7)]) - 6
    assert abs(lag) == 3
    ghost = scan(bone, protocol, rung="scan", scanner=Scanner(odd_even_phase=0.2)).values[0, :, :, 0]
    there = np.roll(ghost, 12, axis=0)[8:16, 8:16].mean() / plain[8:16, 8:16].mean()
    assert there == pytest.approx(np.sin(0.2), rel=0.1)


def test_faults_of_the_gradients_bend_radial_images() -> None:
    bone = block()
    radial = {"trajectory": "radial_2d", "dwell": 5e-6, "spokes": 60, "samples": 40}
    protocol = dataclasses.replace(ECHOES, readout=radial, table={"echo": (1e-3,)})
    plain = scan(bone, protocol, rung="scan").values
    for scanner in (Scanner(delays=(8e-6, 0, 0)), Scanner(eddy_currents=(EddyCurrent(1e-3, linear=0.05),))):
        bent = scan(bone, protocol, rung="scan", scanner=scanner).values
        assert np.abs(bent - plain).max() > 0.02 * np.abs(plain).max()


def test_an_image_may_have_a_grid_of_its_own() -> None:
    bone = block()
    image = scan(bone, read(matrix=[1, 12, 16], fov=[2e-3, 0.048, 0.064]), rung="scan")
    assert image.shape[:3] == (1, 12, 16)
    np.testing.assert_allclose(image.attrs["voxel_size"], [2e-3, 4e-3, 4e-3])
    centre = image.attrs["affine"].reshape(4, 4) @ [7.5, 5.5, 0, 1]
    np.testing.assert_allclose(centre, np.diag([2.0, 2, 2, 1]) @ [11.5, 11.5, 0, 1])


def test_what_cannot_be_scanned_is_told() -> None:
    bone = block()
    table: list[tuple[dict[str, Any], str]] = [
        ({"protocol": read(matrix=0)}, "matrix is 0"),
        ({"protocol": read(reconstruction="magic")}, "readout.reconstruction is 'magic': expected direct or sense"),
        ({"protocol": read(spokes=3)}, "spokes is no entry of trajectory cartesian"),
        ({"scanner": Scanner(b0=np.zeros((2, 2, 2)))}, "b0 has shape (2, 2, 2): expected (1, 24, 24)"),
        ({"bone": block(water=0.0)}, "no pool of it shows"),
    ]
    for arguments, message in table:
        call = {"bone": bone, "protocol": read(), "scanner": None} | arguments
        with pytest.raises(InputError) as caught:
            scan(call["bone"], call["protocol"], rung="scan", scanner=call["scanner"])
        assert message in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="noise in k-space"):
        add_noise(scan(bone, read(), rung="scan"), snr=10)
    broken = block()
    broken.pools["T2"].values[0] = np.nan
    with pytest.raises(InputError, match="pool water .*T2 is NaN where it has density"):
        scan(broken, read(), rung="scan")


@pytest.mark.parametrize("name", ["dixon_marrow", "ute_ir"])
def test_fields_of_many_voxels_are_interpolated_to_the_precision_stated(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (1, 48, 48)
    bone = block(shape, fat=0.5)
    rng = np.random.default_rng(4)
    B1 = rng.uniform(0.7, 1.2, shape) * np.exp(1j * rng.uniform(-3, 3, shape))
    scanner = Scanner(b0=rng.uniform(-150, 150, shape), b1=B1)
    protocol = protocols.get(name)
    quick = scan(bone, protocol, rung="engine", scanner=scanner).values
    monkeypatch.setattr(playing, "MANY", 10**9)
    plain = scan(bone, protocol, rung="engine", scanner=scanner).values
    # each interpolation errs by 1e-5 of its largest signal; those of water and fat add, tried at 16 of 576 voxels
    assert 0 < np.abs(quick - plain).max() < 5e-5 * np.abs(plain).max()


def test_what_is_not_smooth_in_the_field_is_computed_voxel_by_voxel() -> None:
    offset = np.linspace(-500, 500, 4000)
    calls = []

    def answer(B1: np.ndarray, shift: np.ndarray) -> np.ndarray:
        calls.append(shift.size)
        return np.exp(2j * np.pi * shift * 1e-3)[:, None] * (1 / (1 + (shift / 0.7) ** 2))[:, None]

    found = over_fields(answer, np.ones(4000, complex), offset, np.array([1e-3]))
    np.testing.assert_array_equal(found, answer(np.ones(4000), offset))
    assert 4000 in calls


def test_pools_that_exchange_climb_every_rung() -> None:
    bone = phantoms.cortical(resolution=4.8e-3, exchange=True)
    with pytest.raises(
        InputError, match="exchanges, and a closed form needs T1_observed: expected rung engine or scan"
    ):
        scan(bone, protocols.ute_dual_echo, rung="pools")
    protocol = dataclasses.replace(
        protocols.ute_2d, readout={"trajectory": "radial_2d", "dwell": 8e-6, "spokes": 30, "samples": 16}
    )
    image = scan(bone, protocol, rung="scan", snr=50, seed=1)
    engine = scan(bone, protocols.dixon_marrow, rung="engine", snr=50, seed=1)
    assert np.isfinite(image.values).all() and image.attrs["signal_reference"] > 0
    assert np.isfinite(engine.values).all() and engine.attrs["signal_reference"] > 0


def test_a_level_of_noise_means_the_same_on_every_rung() -> None:
    bone, weak = block(), Scanner(b1=np.full((1, 24, 24), 0.5))
    levels = [
        scan(bone, read(), rung=rung, snr=50, scanner=weak).attrs["noise_sd"] for rung in ("pools", "engine", "scan")
    ]
    # S_ref is that of the closed form under an ideal scanner, whatever B1 is
    assert levels == pytest.approx([scan(bone, read(), snr=50).attrs["noise_sd"]] * 3, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("T1_observed", -1.0, "T1_observed of pool water is -1 at voxel z = 0, y = 6, x = 6: expected above 0 s"),
        ("T2", 0.0, "T2 of pool water is 0 at voxel z = 0, y = 6, x = 6: expected above 0 s"),
        ("density", -2.0, "density of pool water is -2 at voxel z = 0, y = 0, x = 0: expected a finite amount"),
        ("density", np.inf, "density of pool water is inf at voxel z = 0, y = 0, x = 0: expected a finite amount"),
    ],
)
def test_tissue_that_means_nothing_is_told(name: str, value: float, message: str) -> None:
    for rung in ("pools", "engine", "scan"):
        bone = block()
        bone.pools[name].values[(0,) * bone.pools[name].ndim] = value
        with pytest.raises(InputError) as caught:
            scan(bone, read(), rung=rung)
        assert message in str(caught.value)


def test_no_pool_and_a_pulse_of_no_sequence_are_told() -> None:
    bone = block()
    empty = SimpleNamespace(pools=bone.pools.isel(pool=[]), truth=bone.truth)
    with pytest.raises(InputError, match="pools has no pool: expected one at least"):
        scan(empty, read())
    misspelt = dataclasses.replace(ECHOES, pulses={"excitaton": {"shape": "hard", "duration": 1e-5}})
    with pytest.raises(InputError, match="pulses.excitaton is no pulse of sequence gradient_echo: expected excitation"):
        scan(bone, misspelt, rung="engine")
