"""Functions on lanes against many digits, loops that vectorise, and the cache of compiled kernels."""

import os
import platform
import re
import subprocess
import sys

import mpmath
import numba
import numpy as np
import pytest

from bonemri.simulator import equations, kernels, lanes

LIBRARY = ("exp", "expm1", "sin", "cos")


@pytest.fixture(scope="module")
def evaluate():
    """The four functions, compiled as kernels are, over an array."""
    functions = {}
    for name in LIBRARY:
        function = getattr(lanes, name)

        def loop(x, out, function=function):
            for i in range(x.size):
                out[i] = function(x[i])

        scope = {"function": function}
        exec("def loop(x, out):\n    for i in range(x.size):\n        out[i] = function(x[i])\n", scope)
        compile_it = numba.njit("void(f8[::1], f8[::1])", fastmath=lanes.FASTMATH, error_model="numpy")
        functions[name] = compile_it(scope["loop"])

    def call(name, x):
        out = np.empty_like(x)
        functions[name](x, out)
        return out

    return call


def points(name):
    """Arguments over the whole range of a function, with its hard places among them."""
    rng = np.random.default_rng(0)
    small = np.concatenate([10.0 ** rng.uniform(-300, 0, 400), -(10.0 ** rng.uniform(-300, 0, 400)), [0.0]])
    if name in ("exp", "expm1"):
        halves = (np.arange(-1020, 1020, 7) + 0.5) * np.log(2.0)  # where the reduction changes its integer
        drawn = [rng.uniform(-708, 709, 3000), rng.uniform(-2, 2, 1000)]
        return np.concatenate([small, *drawn, halves, np.nextafter(halves, 0), [-708.0, 709.0]])
    zeros = np.arange(-60000, 60000, 997) * (np.pi / 2)  # the reduced argument is all cancellation there
    return np.concatenate([small, rng.uniform(-10, 10, 2000), rng.uniform(-1e5, 1e5, 2000), zeros, zeros + np.pi / 4])


@pytest.mark.parametrize("name", LIBRARY)
def test_within_a_few_units_in_the_last_place(evaluate, name):
    """Rounding of the reduction, the polynomial and the last product: half a unit each, three at worst for expm1."""
    x = points(name)
    got = evaluate(name, x)
    with mpmath.workdps(40):
        exact = [getattr(mpmath, name)(mpmath.mpf(float(v))) for v in x]
        unit = np.spacing(np.maximum(np.abs([float(v) for v in exact]), np.finfo(float).tiny))
        error = np.array([abs(float(mpmath.mpf(float(g)) - e)) for g, e in zip(got, exact, strict=True)])
    assert (error / unit).max() < {"exp": 1.5, "expm1": 3.0, "sin": 2.0, "cos": 2.0}[name]


@pytest.mark.parametrize("name", LIBRARY)
def test_nan_passes(evaluate, name):
    """A lane whose value is lost must not come back with a number."""
    assert np.isnan(evaluate(name, np.array([np.nan, 1.0, np.nan]))).tolist() == [True, False, True]


def test_exp_is_clamped_beyond_its_range(evaluate):
    """Beyond the clamp the exponent bits would overflow into the sign: 0 and infinity must stay near 0 and huge."""
    got = evaluate("exp", np.array([-np.inf, -1e4, 1e4, np.inf]))
    with mpmath.workdps(30):
        low, high = float(mpmath.exp(-708)), float(mpmath.exp(709))
    np.testing.assert_allclose(got, [low, low, high, high], rtol=4e-16)


def kernel_text(name):
    """Source of the kernel that fits all unknowns of an equation."""
    equation = equations.get(name)
    unknowns = [equation.symbols[q.name] for q in equation.unknowns]
    return kernels.source(equation.expression, unknowns, [], [equation.symbols[q.name] for q in equation.settings])


X86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads x86-64 assembly")


@X86
@pytest.mark.parametrize("name", ["ivim", "spoiled_gradient_echo"])
def test_the_loop_over_lanes_is_vectorised(name):
    """An uncached compile does its arithmetic in packed doubles, and calls no library function in the loop."""
    text = kernel_text(name).replace(", cache=True", "").replace("from .", "from bonemri.simulator.")
    scope: dict = {"__name__": "kernel_under_test"}
    exec(text, scope)
    kernel = scope["kernel"]
    assembly = kernel.inspect_asm(kernel.signatures[0])
    # multiplications and fused multiply-adds; a scalar copy stands by for arrays that overlap
    packed = len(re.findall(r"\bv?(?:f(?:n?m)(?:add|sub)\d*|mul)pd\b", assembly))
    multiplied = text.split("for i in range(LANES):")[1].count("*")
    assert packed > multiplied  # each of ours, and the polynomials inside exp, sin, cos
    assert not re.search(r"call\w*\s+\*?.*\b(exp|expm1|sin|cos)\b", assembly)


# ---- the cache of compiled kernels: each test runs processes of its own on a folder of its own

FIT = """
import sys, time
begin = time.perf_counter()
{before}
import numpy as np
from bonemri.simulator import equations
from bonemri.estimators import solver
b = np.array([0, 10, 20, 50, 100, 200, 400, 800.0])
f = np.linspace(0.1, 0.3, 40)
data = 0.8 * np.exp(-b * 5e-4) + f[:, None] * (np.exp(-b * 0.03) - 0.5 * np.exp(-b * 5e-4))
found = solver.fit(equations.ivim, data, {{"b": b}})
print(found.theta.tobytes().hex())
print(time.perf_counter() - begin, file=sys.stderr)
{after}
"""


def process(cache, before="", after="", **environment):
    env = {**os.environ, "BONEMRI_CACHE": str(cache), **environment}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    text = FIT.format(before=before, after=after)
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", text], env=env, stdout=pipe, stderr=pipe, text=True)


def finished(job):
    out, err = job.communicate(timeout=300)
    assert job.returncode == 0, err
    return out, err


@pytest.fixture(scope="module")
def cold(tmp_path_factory):
    """A cache filled by two processes that start on it together while it is empty: (folder, what each printed)."""
    folder = tmp_path_factory.mktemp("cache") / "not" / "there" / "yet"
    jobs = [process(folder), process(folder)]
    return folder, [finished(job)[0] for job in jobs]


def test_two_processes_at_once(cold):
    """They may both compile; neither may meet half a file, and nothing unfinished is left."""
    folder, printed = cold
    assert printed[0] == printed[1]
    assert not list(folder.glob("*.tmp"))


def test_the_named_cache_is_used(cold):
    folder, _ = cold
    stems = {re.sub(r"_[0-9a-f]{20}\.py$", "", p.name) for p in folder.glob("*.py")}
    assert stems == {"_ivim", "_levenberg", "_sweep"}
    assert len(list(folder.rglob("*.nbc"))) >= 3  # machine code beside the text


def test_a_hit_neither_parses_nor_differentiates_nor_compiles(cold):
    """With sympy and scipy out of reach, and the printer broken, a warm process fits all the same, to the bit."""
    folder, printed = cold
    listing = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.suffix in (".py", ".nbc", ".nbi")}
    before = "sys.modules['sympy'] = sys.modules['scipy'] = None"
    broken = before + "\nfrom bonemri.simulator import kernels\nkernels.source = None"
    out, _ = finished(process(folder, broken))
    assert out == printed[0]
    assert listing == {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.suffix in (".py", ".nbc", ".nbi")}


def test_a_changed_formula_is_another_kernel():
    """What decides the machine code decides the name; what does not, does not."""
    name = kernels.digest("S0*exp(-b*D)", ("S0", "D"), ())
    assert name == kernels.digest("S0*exp(-b*D)", ("S0", "D"), ())
    assert name != kernels.digest("S0*exp(b*D)", ("S0", "D"), ()) != kernels.digest("S0*exp(-b*D)", ("S0",), ("D",))


def test_a_cache_that_cannot_be_written_is_passed_over(tmp_path, monkeypatch):
    """The next place is taken in turn: here the user's own, then a temporary one."""
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("BONEMRI_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert kernels.cache_directory() == tmp_path / "user" / "bonemri"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert kernels.cache_directory().parent == tmp_path
