"""Speed and memory of the water-fat fit, with its field map and alone: `python benchmarks/dixon_fit.py`.

Data: six echoes of 1.2 to 6.7 ms at 3 T, complex noise at SNR 50; fat about a round of marrow in a field that bends
over some 150 Hz. `dixon` finds the field map, fits six unknowns and tells their errors; `fit alone` is the loop alone,
from starts 3 Hz and 10 1/s off; where the noise is not told, the residuals of neighbours tell it; scipy is
`least_squares` of the same six unknowns with the exact Jacobian, from the truth.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

TE = 1.21e-3 + 1.1e-3 * np.arange(6)
SNR = 50.0
MEMORY = """
import resource, sys, time
sys.path.insert(0, {here!r})
import dixon_fit
from bonemri import estimators
estimators.dixon(dixon_fit.scan(1, 16), sigma=0.02)
image = dixon_fit.scan({slices}, {edge})
begin = time.perf_counter()
estimators.dixon(image)
print(time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def settings() -> dict[str, np.ndarray]:
    """What the water-fat equations ask of a protocol."""
    from bonemri.simulator import tissues, water_fat

    c = water_fat.fat_signal(TE, 3.0, tissues.spectrum(), tissues.water_shift())
    return water_fat.settings_of(TE, c, np.arange(TE.size))


def truth(slices: int, edge: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fat fraction, R2* (1/s) and field (Hz), (z, y, x)."""
    z, y, x = np.mgrid[0:slices, 0:edge, 0:edge]
    y, x = y / edge, x / edge
    marrow = (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.1
    return np.where(marrow, 0.35, 0.9), np.where(marrow, 90.0, 40.0), 80.0 * np.sin(3 * x) + 60.0 * y + z - 40.0


def scan(slices: int, edge: int):  # type: ignore[no-untyped-def]
    """A noisy image, (z, y, x, echo), made slice by slice."""
    import xarray as xr

    from bonemri.simulator import equations, tissues

    rng, given = np.random.default_rng(0), settings()
    pdff, rate, field = truth(slices, edge)
    data = np.empty((slices, edge, edge, TE.size), complex)
    for k in range(slices):
        tissue = {"S0": 1.0, "pdff": pdff[k].ravel(), "r2star": rate[k].ravel(), "fieldmap": field[k].ravel()}
        clean = equations.get("water_fat").signal({**tissue, "phase": 0.3, "phase_fat": 0.0}, given)
        noise = rng.normal(size=(2, *clean.shape)) / SNR
        data[k] = (clean + noise[0] + 1j * noise[1]).reshape(edge, edge, -1)
    attrs = {"field_strength": 3.0, "temperature": tissues.BODY_TEMPERATURE}
    return xr.DataArray(data, dims=("z", "y", "x", "echo"), coords={"echo": TE}, attrs=attrs)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """That many threads."""
    before = os.environ.get("BONEMRI_THREADS")
    os.environ["BONEMRI_THREADS"] = str(count)
    try:
        yield
    finally:
        os.environ.pop("BONEMRI_THREADS") if before is None else os.environ.update(BONEMRI_THREADS=before)


def best(work: Callable[[], object], times: int = 5) -> float:
    """The shortest of several runs (s): what else runs on the machine only ever adds."""
    durations = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        durations.append(time.perf_counter() - begin)
    return min(durations)


def whole(count: int, edge: int = 128, sigma: float | None = 1 / SNR) -> float:
    """Voxels a second of `dixon`, field map and errors included."""
    from bonemri import estimators

    image = scan(1, edge)
    with threads(count):
        estimators.dixon(image, sigma=sigma)
        return edge * edge / best(lambda: estimators.dixon(image, sigma=sigma))


def untold(count: int) -> float:
    """As `whole`, of an image that must tell its noise itself."""
    return whole(count, sigma=None)


def alone(count: int, edge: int = 128) -> float:
    """Voxels a second of the compiled fit with its covariances, from starts 3 Hz and 10 1/s off."""
    from bonemri.estimators import solver
    from bonemri.estimators.fat import fit as fat_fit
    from bonemri.estimators.fat.start import demodulated, projected
    from bonemri.estimators.fat.train import Train
    from bonemri.simulator import equations

    data = scan(1, edge).values.reshape(-1, TE.size)
    _, rate, field = (v.ravel() for v in truth(1, edge))
    given = settings()
    train = Train(TE, given["fat_real"] + 1j * given["fat_imag"], np.arange(TE.size), None)
    turned = demodulated(data, TE, field + 3.0)
    W, F = projected(turned, train, np.zeros(len(rate)), rate + 10.0)
    model = equations.get("water_fat_free")
    start = dict(zip(fat_fit.AMPLITUDES, (W.real, W.imag, F.real, F.imag), strict=True))
    start |= {"fieldmap": np.zeros(len(rate)), "r2star": rate + 10.0}
    given = {q.name: given[q.name] for q in model.settings}
    limits = {name: fat_fit.BOUNDS[name] for name in ("fieldmap", "r2star")}

    def work() -> object:
        return solver.fit(model, turned, given, start=start, bounds=limits, rtol=fat_fit.RTOL, covariance=True)

    with threads(count):
        work()
        return len(data) / best(work)


def scipy(edge: int = 20) -> float:
    """Voxels a second of `scipy.optimize.least_squares` from the truth."""
    from scipy.optimize import least_squares

    data = scan(1, edge).values.reshape(-1, TE.size)
    pdff, rate, field = (v.ravel() for v in truth(1, edge))
    given = settings()
    c = given["fat_real"] + 1j * given["fat_imag"]

    def parts(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        decay = np.exp((200j * np.pi * x[4] - 100 * x[5]) * TE)
        return decay, (x[0] + 1j * x[1] + (x[2] + 1j * x[3]) * c) * decay

    def residual(x: np.ndarray, d: np.ndarray) -> np.ndarray:
        r = parts(x)[1] - d
        return np.concatenate([r.real, r.imag])

    def jacobian(x: np.ndarray, d: np.ndarray) -> np.ndarray:
        decay, s = parts(x)
        j = np.stack([decay, 1j * decay, c * decay, 1j * c * decay, 200j * np.pi * TE * s, -100 * TE * s], axis=1)
        return np.concatenate([j.real, j.imag])

    def work() -> None:
        for d, p, r, f in zip(data, pdff, rate, field, strict=True):
            begin = [(1 - p) * np.cos(0.3), (1 - p) * np.sin(0.3), p * np.cos(0.3), p * np.sin(0.3), f / 100, r / 100]
            least_squares(residual, begin, jacobian, args=(d,), method="lm")

    return len(data) / best(work, 3)


def large(slices: int, edge: int) -> tuple[float, float]:
    """Seconds and peak bytes of a whole volume in a process of its own."""
    text = MEMORY.format(here=os.path.dirname(os.path.abspath(__file__)), slices=slices, edge=edge)
    out = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout.split()
    return float(out[0]), float(out[1])


def test_speed_and_memory() -> None:
    """Ratios to scipy and between threads, and a large volume; they need a machine with nothing else to do."""
    peer = scipy()
    assert alone(1) >= 200 * peer
    assert whole(1) >= 50 * peer
    seconds, peak = large(40, 256)
    assert seconds < 30.0 and peak < 3e9


def main() -> None:
    """Print the table."""
    print(__doc__.split("\n\n")[1].replace("\n", " "))
    peer = scipy()
    print(f"\n{'':44}{'voxels/s':>12}{'over scipy':>12}")
    print(f"{'scipy least_squares, 400 voxels':44}{peer:12.3g}{1:12.1f}")
    for name, work in (("fit alone", alone), ("dixon, field map included", whole), ("noise not told", untold)):
        for count in (1, 2):
            speed = work(count)
            print(f"{f'{name}, {count} thread(s), 128 x 128 x 6':44}{speed:12.3g}{speed / peer:12.1f}")
    seconds, peak = large(40, 256)
    print(
        f"\n256 x 256 x 40 x 6: {seconds:.1f} s, peak memory {peak / 1e9:.2f} GB, of which data "
        f"{256 * 256 * 40 * 96 / 1e9:.2f} GB"
    )
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


if __name__ == "__main__":
    main()
