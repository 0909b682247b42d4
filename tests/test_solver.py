"""The solver against certified values, scipy, itself: starts, bounds, held values, likelihoods, threads, bad data."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from bonemri.errors import InputError
from bonemri.estimators import solver
from bonemri.estimators.status import Status
from bonemri.simulator import Equation, Quantity, equations, threads

B = np.array([0.0, 10, 20, 30, 50, 80, 100, 200, 400, 600, 800])
IVIM = equations.get("ivim")
MONO = equations.get("mono_exponential")
UNKNOWNS = ("S0", "f", "D_star", "D")
INF = float("inf")


def marrow(n, seed, low_f=0.02):
    """Random bi-exponential parameters over and beyond the marrow ranges, all voxels of S0 1."""
    rng = np.random.default_rng(seed)
    D_star = np.exp(rng.uniform(np.log(8e-3), np.log(0.1), n))
    return {"S0": np.ones(n), "f": rng.uniform(low_f, 0.5, n), "D_star": D_star, "D": rng.uniform(0.2e-3, 2e-3, n)}


def noisy(theta, snr, seed, b=B):
    """Signal of the parameters with Gaussian noise of SD 1/snr."""
    signal = IVIM.signal(theta, {"b": b})
    return signal + np.random.default_rng(seed).normal(0.0, 1.0 / snr, signal.shape)


# ---- certified outside truth

FORMULA = {
    "Misra1a": "b1*(1 - exp(-b2*x))",
    "BoxBOD": "b1*(1 - exp(-b2*x))",
    "MGH17": "b1 + b2*exp(-x*b4) + b3*exp(-x*b5)",
    **{f"Lanczos{k}": "b1*exp(-b2*x) + b3*exp(-b4*x) + b5*exp(-b6*x)" for k in (1, 2, 3)},
}


@pytest.mark.parametrize("start", ["start1", "start2"])
@pytest.mark.parametrize("name", FORMULA)
def test_nist_reference_data(root, name, start):
    """Eight digits of every certified value and standard error, from both certified starts, asked for all digits.

    The residuals of Lanczos1 are rounding of the published data, so that its standard errors mean nothing in float64.
    """
    reference = json.loads((root / "tests" / "nist_strd.json").read_text())[name]
    n = len(reference["certified"])
    unknowns = tuple(Quantity(f"b{i + 1}", "1", -INF, INF, "parameter") for i in range(n))
    equation = Equation(name, name, FORMULA[name], unknowns, (Quantity("x", "1", -INF, INF, "predictor"),), "NIST StRD")
    begin = {q.name: value for q, value in zip(unknowns, reference[start], strict=True)}
    y, x = np.array([reference["y"]]), np.array(reference["x"])
    found = solver.fit(equation, y, {"x": x}, start=begin, rtol=1e-20, max_evaluations=3000)
    sd = found.unit_sd[0] * np.sqrt(found.cost[0] / (y.size - n))
    np.testing.assert_allclose(found.theta[0], reference["certified"], rtol=1e-8)
    assert found.status[0] == 0
    if name != "Lanczos1":
        np.testing.assert_allclose(sd, reference["sd"], rtol=1e-8)
        np.testing.assert_allclose(found.cost[0], reference["rss"], rtol=1e-8)


# ---- the minimum it finds

LOW, HIGH = np.array([0.0, 0.0, 1e-3, 0.0]), np.array([INF, 1.0, 0.3, 5e-3])


def scipy_cost(y, begin):
    """Cost of a tightly converged scipy fit within the same bounds from `begin`, on a formula typed here."""

    def residual(t):
        return t[0] * (t[1] * np.exp(-B * t[2]) + (1 - t[1]) * np.exp(-B * t[3])) - y

    def jacobian(t):
        fast, slow = np.exp(-B * t[2]), np.exp(-B * t[3])
        by_amplitude = t[1] * fast + (1 - t[1]) * slow, t[0] * (fast - slow)
        by_rate = -t[0] * t[1] * B * fast, -t[0] * (1 - t[1]) * B * slow
        return np.stack([*by_amplitude, *by_rate], 1)

    # trf wants an interior start
    inside = np.clip(begin, LOW + 1e-9, np.where(np.isfinite(HIGH), HIGH * (1 - 1e-9), HIGH))
    tight = {"x_scale": (1.0, 0.1, 0.02, 1e-3), "xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15, "max_nfev": 500}
    return 2 * optimize.least_squares(residual, inside, jacobian, (LOW, HIGH), **tight).cost


def grid_starts(data):
    """The starts that the solver itself would take."""
    kernel, x, held = IVIM.arrange({"b": B}, len(data), UNKNOWNS)
    return solver._Grid(IVIM, kernel, UNKNOWNS, x, LOW, HIGH).starts(data, held)


def against_scipy(n, seed):
    """Relative excess of our cost over scipy's from the same start, over four SNRs, (voxel,)."""
    excess = []
    for snr in (20, 50, 100, 400):
        data = noisy(marrow(n // 4, seed), snr, seed + 1)
        mine = solver.fit(IVIM, data, {"b": B}).cost
        theirs = np.array([scipy_cost(y, t) for y, t in zip(data, grid_starts(data), strict=True)])
        excess.append(mine / theirs - 1.0)
    return np.concatenate(excess)


def test_cost_of_scipy_from_the_same_start():
    """Within 1e-6 of scipy's cost in 99.7 % of voxels, more than 1e-3 above it in none of 300."""
    excess = against_scipy(300, 11)
    assert np.mean(excess <= 1e-6) >= 0.997
    assert np.mean(excess > 1e-3) <= 1e-4
    assert np.mean(np.abs(excess) <= 1e-6) >= 0.90  # and scipy is a witness: mostly it is the same minimum


@pytest.mark.slow
def test_cost_of_scipy_from_the_same_start_at_length():
    """As above with 12 000 voxels, enough to see one in ten thousand."""
    excess = against_scipy(12000, 12)
    print(f"within 1e-6: {np.mean(excess <= 1e-6):.5f}, above 1e-3: {np.mean(excess > 1e-3):.2e}")
    assert np.mean(excess <= 1e-6) >= 0.997
    assert np.mean(excess > 1e-3) <= 1e-4


@pytest.mark.parametrize("snr", [20, 50, 100, 1e6])
def test_default_starts_find_the_best_of_eight_random_starts(snr):
    """In at least 99.5 % of voxels (4000, as the random starts cost eight fits each)."""
    n = 4000
    theta = marrow(n, 5, low_f=0.0)
    data = noisy(theta, snr, 6)
    mine = solver.fit(IVIM, data, {"b": B}).cost
    rng = np.random.default_rng(7)
    best = np.full(n, np.inf)
    for _ in range(8):
        begin = {
            "S0": data[:, 0],
            "f": rng.uniform(0.0, 0.6, n),
            "D_star": np.exp(rng.uniform(np.log(3e-3), np.log(0.3), n)),
            "D": rng.uniform(0.1e-3, 3e-3, n),
        }
        best = np.minimum(best, solver.fit(IVIM, data, {"b": B}, start=begin).cost)
    # below 1e-20 of the signal's square there is nothing but rounding
    assert np.mean(mine <= best * (1 + 1e-6) + 1e-20) >= 0.995


def test_noise_free_values_come_back():
    """To 1e-6 from a perfusion fraction of .02 and a ratio of diffusivities of 5; nothing flagged."""
    n = 4000
    theta = marrow(n, 8)
    theta["S0"] = np.random.default_rng(9).uniform(1.0, 3000.0, n)
    theta["D_star"] = np.maximum(theta["D_star"], 5.0 * theta["D"])
    found = solver.fit(IVIM, IVIM.signal(theta, {"b": B}), {"b": B})
    for name in UNKNOWNS:
        np.testing.assert_allclose(found[name], theta[name], rtol=1e-6, err_msg=name)
    assert not found.status.any()


def test_noise_free_elsewhere_leaves_no_residual():
    """Where the compartments merge or one vanishes, the curve is met to 1e-10 of S0, or the fit is flagged.

    Two exponentials whose rates differ by a tenth are one curve to 1e-5: down such a valley a descent takes thousands
    of steps. Asked for them, it must arrive.
    """
    rng = np.random.default_rng(10)
    n = 3000
    slow = rng.uniform(0.2e-3, 2e-3, n)
    theta = {"S0": np.full(n, 500.0), "f": rng.uniform(0.0, 0.5, n), "D": slow}
    theta["D_star"] = np.clip(slow * rng.uniform(1.0, 5.0, n), 1e-3, 0.3)
    theta["f"][::3] *= 0.04  # f below .02
    theta["f"][::100] = 0.0
    found = solver.fit(IVIM, IVIM.signal(theta, {"b": B}), {"b": B})
    met = np.sqrt(found.cost / B.size) <= 1e-10 * 500.0
    assert np.isfinite(found.theta).all()
    # but for one in a thousand that stops where the compartments are one: its standard errors are boundless
    assert np.mean(~met & (found.status == 0)) <= 1e-3
    assert np.mean(met) >= 0.95
    longer = solver.fit(IVIM, IVIM.signal(theta, {"b": B}), {"b": B}, max_evaluations=10_000)
    assert np.mean(np.sqrt(longer.cost / B.size) <= 1e-10 * 500.0) >= 0.985
    # where f is 0, D* can be anything: its standard error says so
    assert np.all((found.status[::100] != 0) | np.isinf(found.unit_sd[::100, 2]) | (found.unit_sd[::100, 2] > 1e6))


# ---- standard errors


def test_standard_errors_are_those_of_scipy():
    """Same J'J at the same minimum: scipy's covariance is from a forward difference Jacobian, good to 1e-5 of it."""
    theta = {"S0": np.ones(6), "f": np.linspace(0.15, 0.3, 6), "D_star": np.full(6, 0.03), "D": np.full(6, 0.6e-3)}
    data = noisy(theta, 200, 3)
    found = solver.fit(IVIM, data, {"b": B}, covariance=True)
    assert found.covariance is not None

    def model(b, S0, f, D_star, D):
        return S0 * (f * np.exp(-b * D_star) + (1 - f) * np.exp(-b * D))

    for v, y in enumerate(data):
        tight = {"method": "trf", "x_scale": (1.0, 0.1, 0.02, 1e-3), "xtol": 1e-14, "ftol": 1e-14, "gtol": 1e-14}
        values, matrix = optimize.curve_fit(model, B, y, (1.0, 0.2, 0.03, 6e-4), **tight)
        scale = found.cost[v] / (B.size - 4)
        np.testing.assert_allclose(found.theta[v], values, rtol=1e-5)
        np.testing.assert_allclose(found.unit_sd[v] * np.sqrt(scale), np.sqrt(np.diag(matrix)), rtol=1e-4)
        np.testing.assert_allclose(found.covariance[v] * scale, matrix, rtol=1e-3)


def test_fewer_points_than_unknowns_are_singular():
    found = solver.fit(IVIM, np.array([[1.0, 0.8, 0.6]]), {"b": np.array([0.0, 100.0, 800.0])})
    assert np.isinf(found.unit_sd).all() and found.status[0] & Status.NOT_IDENTIFIABLE


# ---- what is held, frozen, bounded


def test_held_unknowns_scalar_or_per_voxel_or_frozen():
    """Three ways to know D: the same values, and no error of what is known in the standard errors."""
    theta = marrow(50, 1)
    theta["D"][:] = 0.7e-3
    data = noisy(theta, 100, 2)
    scalar = solver.fit(IVIM, data, {"b": B}, known={"D": 0.7e-3})
    mapped = solver.fit(IVIM, data, {"b": B}, known={"D": theta["D"]})
    assert scalar.free == mapped.free == ("S0", "f", "D_star")
    begin = {**dict(zip(scalar.free, scalar.theta.T, strict=True)), "D": 0.7e-3}
    frozen = solver.fit(IVIM, data, {"b": B}, start=begin, frozen=("D",))
    np.testing.assert_allclose(mapped.cost, scalar.cost, rtol=1e-9)
    np.testing.assert_allclose(frozen.cost, scalar.cost, rtol=1e-9)
    assert (frozen["D"] == 0.7e-3).all() and (frozen.unit_sd[:, 3] == 0.0).all()
    sharp = (scalar.status == 0) & (frozen.status == 0)
    assert sharp.sum() > 30
    np.testing.assert_allclose(frozen.unit_sd[sharp, :3], scalar.unit_sd[sharp], rtol=1e-3)
    assert (solver.fit(IVIM, data, {"b": B}).unit_sd[:, 1] > 1.01 * scalar.unit_sd[:, 1])[sharp].all()


def test_each_voxel_has_its_own_held_value():
    """Known values that differ from voxel to voxel reach their own voxel, also when lanes take the next voxel early."""
    n = 300
    theta = marrow(n, 4)
    data = IVIM.signal(theta, {"b": B})
    found = solver.fit(IVIM, data, {"b": B}, known={"D": theta["D"]})
    for name in found.free:
        np.testing.assert_allclose(found[name], theta[name], rtol=1e-6, err_msg=name)


def test_a_setting_held_per_voxel():
    """A B1 map scales the flip angle of each voxel; without it T1 is wrong, with it right."""
    equation = equations.get("spoiled_gradient_echo")
    rng = np.random.default_rng(2)
    n = 100
    theta = {"S0": rng.uniform(500, 900, n), "T1": rng.uniform(0.3, 1.5, n), "R2star": np.zeros(n)}
    angles = np.radians([2.0, 4.0, 8.0, 14.0, 22.0])
    protocol = {"flip_angle": angles, "TR": 0.015, "TE": 0.002, "B1": rng.uniform(0.8, 1.2, (n, 1))}
    data = equation.signal(theta, protocol)
    found = solver.fit(equation, data, protocol, known={"R2star": 0.0})
    np.testing.assert_allclose(found["T1"], theta["T1"], rtol=1e-6)
    wrong = solver.fit(equation, data, {**protocol, "B1": 1.0}, known={"R2star": 0.0})
    assert np.median(abs(wrong["T1"] / theta["T1"] - 1)) > 0.05


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 10**6),
    st.tuples(st.floats(0.0, 0.9), st.floats(0.01, 0.5)),
    st.tuples(st.floats(1e-3, 0.1), st.floats(1.1, 30.0)),
)
def test_bounds_are_respected(seed, f, star):
    """Nothing leaves its bounds; what lies on one is flagged; and no corner of the box is better."""
    bounds = {"f": (f[0], min(f[0] + f[1], 1.0)), "D_star": (star[0], min(star[0] * star[1], 0.3))}
    data = noisy(marrow(40, seed), 30, seed)
    found = solver.fit(IVIM, data, {"b": B}, bounds=bounds)
    low, high = solver.limits(IVIM, UNKNOWNS, bounds)
    assert (found.theta >= low).all() and (found.theta <= high).all()
    touching = ((found.theta == low) | (found.theta == high)).any(axis=1)
    assert (touching == ((found.status & Status.AT_BOUND) > 0)).all()
    for corner in np.ndindex(2, 2):
        at = {"S0": 1.0, "f": bounds["f"][corner[0]], "D_star": bounds["D_star"][corner[1]], "D": 1e-3}
        assert (found.cost <= ((data - IVIM.signal(at, {"b": B})) ** 2).sum(axis=1) * (1 + 1e-9)).all()


@pytest.mark.parametrize("n", range(2, 12))
def test_any_number_of_points(n):
    """Points are taken four at a time: every remainder must count each point once."""
    b = np.linspace(0.0, 1000.0, n)
    theta = {"S0": np.linspace(1.0, 2.0, 35), "adc": np.linspace(0.3e-3, 2e-3, 35)}
    data = MONO.signal(theta, {"b": b}) + np.random.default_rng(n).normal(0, 0.01, (35, n))
    found = solver.fit(MONO, data, {"b": b})
    at = MONO.signal(found.theta, {"b": b})
    np.testing.assert_allclose(found.cost, ((data - at) ** 2).sum(axis=1), rtol=1e-9, atol=1e-28)
    # at the minimum the residual is orthogonal to both columns, to the root of the stop's relative gain in cost
    jacobian = MONO.jacobian(found.theta, {"b": b})
    along = np.einsum("vp,vpk->vk", data - at, jacobian) / np.linalg.norm(jacobian, axis=1)
    assert (abs(along) <= 2e-5 * np.sqrt(found.cost)[:, None] + 1e-14).all()


# ---- complex signals, likelihoods

PHASE = Equation(
    name="decaying_phase",
    title="One resonance with offset and decay",
    formula="A*exp(-TE*R2star)*exp(I*(2*pi*TE*offset + phi))",
    unknowns=(
        Quantity("A", "1", 0.0, INF, "amplitude"),
        Quantity("R2star", "1/s", 0.0, 300.0, "decay"),
        Quantity("offset", "Hz", -60.0, 60.0, "offset", start=(-45.0, -15.0, 15.0, 45.0)),
        Quantity("phi", "rad", -3.5, 3.5, "phase", start=(-2.0, 0.0, 2.0)),
    ),
    settings=(Quantity("TE", "s", 0.0, 0.1, "echo time"),),
    source="Hahn, Phys Rev 80:580 (1950), doi:10.1103/PhysRev.80.580",
)


def test_complex_data():
    """Noise-free values come back; with noise the standard errors are those of two real channels."""
    rng = np.random.default_rng(6)
    n = 400
    echo = {"TE": np.arange(1, 9) * 1.5e-3}
    ranges = {"A": (1, 5), "R2star": (20, 120), "offset": (-50, 50), "phi": (-2.5, 2.5)}
    theta = {name: rng.uniform(*ends, n) for name, ends in ranges.items()}
    signal = PHASE.signal(theta, echo)
    found = solver.fit(PHASE, signal, echo)
    for name in found.free:
        np.testing.assert_allclose(found[name], theta[name], rtol=1e-6, atol=1e-6, err_msg=name)
    repeated = np.repeat(signal[:1], 3000, axis=0)
    noise = rng.normal(0, 0.02, repeated.shape) + 1j * rng.normal(0, 0.02, repeated.shape)
    spread = solver.fit(PHASE, repeated + noise, echo)
    # the SD of 3000 replicates is known to 1/sqrt(2 * 3000), 1.3 %: four of these
    np.testing.assert_allclose(spread.theta.std(axis=0), 0.02 * np.median(spread.unit_sd, axis=0), rtol=0.052)


RICIAN = {"S0": 1.0, "adc": 1.5e-3}


def rician(n, snr, seed, b):
    rng = np.random.default_rng(seed)
    signal = MONO.signal(RICIAN, {"b": b})[0]
    return np.hypot(signal + rng.normal(0, 1 / snr, (n, b.size)), rng.normal(0, 1 / snr, (n, b.size)))


def test_the_rician_likelihood_is_that_of_scipy():
    """The maximum of scipy's density, found by scipy, on data whose far end is all noise."""
    b, sigma = np.linspace(0.0, 2000.0, 9), 1 / 8
    data = rician(8, 8, 5, b)
    found = solver.fit(MONO, data, {"b": b}, sigma=sigma, likelihood="rician")

    def minus_log(t, y):
        return -stats.rice.logpdf(y, t[0] * np.exp(-b * t[1] * 1e-3) / sigma, scale=sigma).sum()

    for v, y in enumerate(data):
        tight = {"xatol": 1e-9, "fatol": 1e-13, "maxiter": 2000}
        best = optimize.minimize(minus_log, (y[0], 1.0), args=(y,), method="Nelder-Mead", options=tight)
        mine = minus_log(found.theta[v] * (1.0, 1e3), y)
        assert mine <= best.fun + 1e-9
        # a likelihood known to 1e-10 places its maximum to the root of that, in SDs
        np.testing.assert_allclose(found.theta[v] * (1.0, 1e3), best.x, rtol=2e-5)
        # the cost is sigma**2 times the deviance but for a constant of the data alone
        constant = 2 * (np.log(y / sigma**2)).sum()
        np.testing.assert_allclose(found.cost[v] / sigma**2, 2 * mine + constant, rtol=1e-7, atol=1e-7)


def test_the_rician_likelihood_removes_the_noise_floor():
    """At SNR 8 the floor pulls a Gaussian fit of adc down by many standard errors; under the right likelihood the
    bias left is at most a fifth of it (second order in the noise, and 4000 replicates know it to a fiftieth)."""
    b, n = np.linspace(0.0, 2000.0, 9), 4000
    data = rician(n, 8, 6, b)
    plain = solver.fit(MONO, data, {"b": b})["adc"]
    right = solver.fit(MONO, data, {"b": b}, sigma=1 / 8, likelihood="rician")["adc"]
    error = plain.std() / np.sqrt(n)
    assert plain.mean() - RICIAN["adc"] < -20 * error
    assert abs(right.mean() - RICIAN["adc"]) < 0.2 * abs(plain.mean() - RICIAN["adc"])


def test_at_high_snr_the_two_likelihoods_agree():
    """The Rician magnitude is Gaussian about sqrt(A**2 + sigma**2): the fits differ by half a percent of an SD."""
    b = np.linspace(0.0, 800.0, 6)
    data = rician(20, 1000, 7, b)
    plain, right = (solver.fit(MONO, data, {"b": b}, sigma=1e-3, likelihood=k) for k in ("gaussian", "rician"))
    assert (abs(right.theta - plain.theta) < 0.05 * 1e-3 * plain.unit_sd).all()
    np.testing.assert_allclose(right.unit_sd, plain.unit_sd, rtol=1e-4)


# ---- the same result whoever computes it


def same(a, b):
    for name in ("theta", "unit_sd", "cost", "status", "evaluations"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


@pytest.fixture(scope="module")
def many():
    data = noisy(marrow(2 * threads.BLOCK + 100, 20, low_f=0.0), 50, 21)
    data[[5, 4100, 8000]] = np.nan
    return data


def test_bit_identical_for_any_number_of_threads(many, monkeypatch):
    results = []
    for number in ("1", "2", "3"):
        monkeypatch.setenv("BONEMRI_THREADS", number)
        results.append(solver.fit(IVIM, many, {"b": B}))
    same(results[0], results[1])
    same(results[0], results[2])


def test_bit_identical_in_any_order_and_alone(many):
    """A voxel owes nothing to its neighbours in the lanes, nor to its place in a block."""
    whole = solver.fit(IVIM, many, {"b": B})
    order = np.random.default_rng(1).permutation(len(many))
    shuffled = solver.fit(IVIM, many[order], {"b": B})
    back = np.argsort(order)
    for name in ("theta", "unit_sd", "cost", "status"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(shuffled, name)[back], err_msg=name)
    for v in range(0, 45):
        np.testing.assert_array_equal(solver.fit(IVIM, many[v : v + 1], {"b": B}).theta[0], whole.theta[v])


@pytest.mark.parametrize(
    "prepare",
    [
        lambda a: np.asfortranarray(a),
        lambda a: np.repeat(a, 2, axis=1)[:, ::2],
        lambda a: np.flip(np.flip(a, 0).copy(), 0),
        lambda a: np.lib.stride_tricks.as_strided(a, a.shape, a.strides, writeable=False),
        lambda a: a.astype(">f8"),
    ],
    ids=["fortran", "strided", "negative stride", "read-only", "big-endian"],
)
def test_any_memory_layout(many, prepare):
    part = many[:500]
    given_ = prepare(part)
    before = np.array(given_)
    same(solver.fit(IVIM, given_, {"b": B}), solver.fit(IVIM, part.copy(), {"b": B}))
    np.testing.assert_array_equal(np.array(given_), before)


def test_single_precision_and_integers_are_taken():
    """They are turned into doubles first: the result is that of the rounded data."""
    data = noisy(marrow(50, 2), 100, 3) * 1000
    for kind in (np.float32, np.int16, np.uint16):
        rounded = np.maximum(data, 0).astype(kind)
        same(solver.fit(IVIM, rounded, {"b": B}), solver.fit(IVIM, rounded.astype(float), {"b": B}))


# ---- data that mean nothing


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_voxel_that_is_not_finite_spoils_no_other(value):
    data = noisy(marrow(100, 3), 50, 4)
    spoiled = data.copy()
    where = [0, 17, 31, 32, 99]
    spoiled[where, [0, 3, 5, 10, 7]] = value
    found, plain = solver.fit(IVIM, spoiled, {"b": B}), solver.fit(IVIM, data, {"b": B})
    assert (found.status[where] == Status.INVALID).all()
    for left in (found.theta, found.cost, found.unit_sd):
        assert np.isnan(left[where]).all()
    rest = np.setdiff1d(np.arange(100), where)
    np.testing.assert_array_equal(found.theta[rest], plain.theta[rest])


def test_a_held_value_or_noise_that_is_not_finite():
    data = noisy(marrow(4, 3), 50, 4)
    found = solver.fit(IVIM, data, {"b": B}, known={"D": np.array([1e-3, np.nan, 1e-3, 1e-3])})
    assert found.status[1] == Status.INVALID and np.isnan(found.theta[1]).all()
    assert np.isfinite(found.theta[[0, 2, 3]]).all()
    found = solver.fit(MONO, np.abs(data), {"b": B}, sigma=np.array([0.02, 0.02, np.nan, 0.02]), likelihood="rician")
    assert found.status[2] == Status.INVALID and np.isfinite(found.theta[[0, 1, 3]]).all()


@pytest.mark.parametrize("row", [np.zeros(11), np.ones(11), -np.ones(11), np.full(11, 1e-200), np.full(11, 1e150), B])
def test_odd_data_end_in_finite_values(row):
    """Zeros, a constant, negative or rising data, and the ends of the exponent: a value within bounds, no warning."""
    found = solver.fit(IVIM, row[None], {"b": B})
    assert np.isfinite(found.theta).all()
    assert (found.theta >= LOW).all() and (found.theta <= HIGH).all()
    assert found.status[0] != 0


def test_no_voxels():
    found = solver.fit(IVIM, np.empty((0, 11)), {"b": B})
    assert found.theta.shape == (0, 4) and found.status.shape == (0,)


def test_a_fit_cut_short_says_so():
    far = {"S0": 1, "f": 0.5, "D_star": 0.2, "D": 4e-3}
    found = solver.fit(IVIM, noisy(marrow(20, 1), 50, 2), {"b": B}, start=far, max_evaluations=2)
    assert (found.status & Status.NOT_CONVERGED).all()


DATA = np.ones((3, 11))


@pytest.mark.parametrize(
    ("data", "arguments", "message"),
    [
        (np.ones(11), {}, r"data have shape \(11,\); expected \(voxel, point\)"),
        (np.ones((3, 10)), {}, "10 points a voxel; the protocol has 11"),
        (DATA + 0j, {}, "complex128; equation ivim is real"),
        (DATA, {"likelihood": "poisson"}, "'poisson'; expected gaussian or rician"),
        (DATA, {"likelihood": "rician"}, "needs sigma"),
        (DATA, {"bounds": {"T1": (0, 1)}}, "bounds name 'T1'; the unknowns of ivim are S0, f, D_star, D"),
        (DATA, {"bounds": {"f": (0.5, 0.5)}}, "low < high"),
        (DATA, {"bounds": {"f": 0.5}}, r"bounds of f are 0.5; expected \(low, high\)"),
        (DATA, {"frozen": ("D",)}, "D cannot be frozen without a start"),
        (DATA, {"known": {"D": np.ones(2)}}, r"D has shape \(2, 1\)"),
    ],
)
def test_wrong_calls_are_told_in_one_line(data, arguments, message):
    with pytest.raises(InputError, match=message) as told:
        solver.fit(IVIM, data, {"b": B}, **arguments)
    assert "\n" not in str(told.value)


def test_a_missing_setting_is_named():
    with pytest.raises(InputError, match=r"lacks b \(s/mm2\)"):
        solver.fit(IVIM, DATA, {})


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_wrong_number_of_threads(monkeypatch, text):
    monkeypatch.setenv("BONEMRI_THREADS", text)
    with pytest.raises(InputError, match="expected a positive integer"):
        threads.count()
