"""A Pulseq file in place of a sequence: a phantom goes through it on the rungs `engine` and `scan`."""

import math
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from bonemri.errors import InputError
from bonemri.simulator.acquisition.scanner import Scanner
from bonemri.simulator.constants import PROTON
from bonemri.simulator.scan import scan

pypulseq = pytest.importorskip("pypulseq")

N, FOV, FLIP, DWELL, RISE = 8, 16e-3, math.radians(20), 5e-5, 2e-4
T1, T2 = 0.5, 0.04
TE = 5e-6 + 1e-3 + RISE + (N / 2 + 0.5) * DWELL  # from the middle of the pulse to k = 0


def gradient_echo(path: Path, before: int = 40) -> Path:
    """A gradient echo of 8 x 8, without spoilers but with T2 short against the wait that follows each line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limits = pypulseq.Opts(max_grad=60, grad_unit="mT/m", max_slew=150, slew_unit="T/m/s")
        made = pypulseq.Sequence(limits)
        pulse = pypulseq.make_block_pulse(FLIP, duration=1e-5, system=limits, phase_offset=math.pi / 2)
        line = pypulseq.make_trapezoid("x", flat_area=N / FOV, flat_time=N * DWELL, rise_time=RISE, system=limits)
        adc = pypulseq.make_adc(N, duration=N * DWELL, delay=line.rise_time, system=limits)
        # sample i lies at (i + 1/2) dwell: half a step of k is added, so that one of them is k = 0
        back = pypulseq.make_trapezoid("x", area=-(line.area + 1 / FOV) / 2, duration=1e-3, system=limits)
        for shot in range(-before, N):
            ky = (max(shot, 0) - N // 2) / FOV
            step = pypulseq.make_trapezoid("y", area=ky, duration=1e-3, system=limits)
            made.add_block(pulse)
            made.add_block(back, step)
            made.add_block(line, *([adc] if shot >= 0 else []))
            made.add_block(pypulseq.make_delay(0.4))
        made.set_definition("FOV", [FOV, FOV, 2e-3])
        made.write(str(path))
    return path


def slab(fat: float = 0.0) -> SimpleNamespace:
    inside = np.zeros((1, N, N))
    inside[0, 2:6, 3:6] = 1.0
    pools = xr.Dataset(
        {
            "density": (("pool", "z", "y", "x"), np.stack([inside, fat * inside])),
            "T1_observed": ("pool", [T1, T1]),
            "T2": ("pool", [T2, T2]),
            "shift": (("pool", "peak"), np.array([[4.64655], [1.3]])),
            "peak_area": (("pool", "peak"), np.ones((2, 1))),
        },
        coords={"pool": ["water", "fat"], "kind": ("pool", ["marrow_water", "fat"])},
        attrs={"field_strength": 3.0, "voxel_size": np.full(3, 2e-3)},
    )
    return SimpleNamespace(pools=pools, truth=xr.Dataset())


def test_a_file_is_played_on_both_rungs(tmp_path: Path) -> None:
    file, bone = gradient_echo(tmp_path / "gre.seq"), slab()
    engine, image = (scan(bone, file, rung=rung) for rung in ("engine", "scan"))
    assert engine.dims == image.dims == ("z", "y", "x", "time")
    assert engine.sizes["time"] == N * N and image.sizes["time"] == 1
    # the sample at k = 0 is a steady state: a repetition lasts about .4 s, which leaves e^-10 = 5e-5 of T2
    centre = N // 2 * N + N // 2
    lasts = 1e-5 + 1e-3 + N * DWELL + 2 * RISE + 0.4
    E1 = math.exp(-lasts / T1)
    expected = math.sin(FLIP) * (1 - E1) / (1 - math.cos(FLIP) * E1) * math.exp(-TE / T2)
    assert abs(engine.values[0, 3, 4, centre]) == pytest.approx(expected, rel=1e-4)
    # what lies in all pixels together is the sample at k = 0, where every voxel counts fully
    total = image.values[..., 0].sum()
    assert abs(total) == pytest.approx(12 * abs(engine.values[0, 3, 4, centre]), rel=1e-2)
    seen = np.abs(image.values[0, ..., 0])
    assert seen[2:6, 3:6].min() > 3 * np.delete(np.delete(seen, slice(1, 7), 0), slice(2, 7), 1).max()
    assert engine.attrs["signal_reference"] == pytest.approx(abs(engine.values[0, 3, 4, centre]), rel=0.05)
    assert image["time"].values[0] == pytest.approx(engine["time"].values[centre], abs=1e-9)


def test_noise_and_coils_of_a_file(tmp_path: Path) -> None:
    file, bone = gradient_echo(tmp_path / "gre.seq", before=2), slab(fat=1.0)
    clean, noisy = scan(bone, file, rung="scan"), scan(bone, file, rung="scan", snr=20, seed=1)
    ratio = np.std(np.concatenate([(noisy - clean).values.real, (noisy - clean).values.imag])) / noisy.attrs["noise_sd"]
    assert ratio == pytest.approx(1.0, abs=4 / math.sqrt(2 * 2 * N * N / 2))  # a line of k-space is read once


def test_what_a_file_cannot_give_is_told(tmp_path: Path) -> None:
    file, bone = gradient_echo(tmp_path / "gre.seq", before=1), slab()
    with pytest.raises(InputError, match="no closed form: expected rung engine or scan"):
        scan(bone, file)
    with pytest.raises(InputError, match="played as it stands"):
        scan(bone, file, rung="scan", scanner=Scanner(delays=(1e-6, 0, 0)))
    with pytest.raises(InputError, match=r"missing\.seq: cannot be read|missing\.seq: no such file"):
        scan(bone, tmp_path / "missing.seq", rung="engine")


def spin_echo(path: Path, lobe: float = 0.0) -> Path:
    """A 90-180 pair with a lobe (T/m at its flat top) on each side, and an acquisition about the echo at 40 ms."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limits = pypulseq.Opts(max_grad=60, grad_unit="mT/m", max_slew=150, slew_unit="T/m/s")
        made = pypulseq.Sequence(limits)
        half = pypulseq.make_block_pulse(math.pi / 2, duration=1e-5, system=limits, use="excitation")
        whole = pypulseq.make_block_pulse(
            math.pi, duration=1e-5, system=limits, phase_offset=math.pi / 2, use="refocusing"
        )
        weight = pypulseq.make_trapezoid("x", amplitude=lobe * PROTON, flat_time=1e-2, rise_time=1e-3, system=limits)
        adc = pypulseq.make_adc(8, duration=8e-5, system=limits)
        for pulse, rest in ((half, 20e-3 - 12e-3), (whole, 20e-3 - 12e-3 - 5e-6 - 4e-5)):
            made.add_block(pulse)
            made.add_block(weight)
            made.add_block(pypulseq.make_delay(round(rest - 1e-5, 5)))
        made.add_block(adc)
        made.write(str(path))
    return path


def test_diffusion_and_R2_prime_act_as_the_events_say(tmp_path: Path) -> None:
    plain, weighted = spin_echo(tmp_path / "plain.seq"), spin_echo(tmp_path / "weighted.seq", 0.03)
    delta, ramp = 0.011, 0.001
    time = delta**2 * (0.02 - delta / 3) + ramp**3 / 30 - delta * ramp**2 / 6
    b = (2 * math.pi * PROTON * 0.03) ** 2 * time * 1e-6
    still, moving = slab(), slab()
    moving.pools["D"] = ("pool", [1e-3, 1e-5])
    for rung in ("engine", "scan"):
        quiet, lost = (np.abs(scan(moving, file, rung=rung).values).max() for file in (plain, weighted))
        # lobes of 11 ms (flat top and a ramp), 20 ms apart within the .1 ms to which the file's rests are rounded
        assert lost / quiet == pytest.approx(math.exp(-b * 1e-3), rel=0.03)
        assert quiet == pytest.approx(np.abs(scan(still, plain, rung=rung).values).max(), rel=1e-3)
        # R2' is refocused at the echo, but for the 40 us about it
        dephasing = slab()
        dephasing.pools["R2_prime"] = ("pool", [50.0, 0.0])
        echo = np.abs(scan(dephasing, plain, rung=rung).values).max()
        assert echo == pytest.approx(quiet, rel=50 * 1e-4)
