"""The contract of an estimate: names, units, status, masks, noise; and what every estimator does with bad data."""

import numpy as np
import pytest
import xarray as xr

from bonemri import estimators, phantoms, simulator
from bonemri.errors import InputError
from bonemri.estimators import Status
from bonemri.simulator import protocols

NAMES = [name for name, e in estimators.registry.items() if e.encoding == "b"]
EVERY = pytest.mark.parametrize("name", NAMES)
RELAXATION = ("T1_water", "T2_water", "T1_blood", "T2_blood", "T1_fat", "T2_fat")


@pytest.fixture(scope="module")
def noisy():
    """A small scan of marrow with its protocol, (z, y, x, b) = (1, 4, 6, 11)."""
    block = phantoms.marrow_block(shape=(1, 4, 6), f=np.linspace(0.04, 0.09, 24).reshape(1, 4, 6))
    return simulator.scan(block, protocols.ivim_marrow, rung="pools", snr=80, seed=4)


@pytest.fixture(scope="module")
def level(noisy):
    """The noise SD of that scan."""
    return float(noisy.attrs["noise_sd"])


# ---- names, units, attributes


@EVERY
@pytest.mark.parametrize("intervals", [False, True])
def test_variables_units_and_names(noisy, level, name, intervals):
    """x, x_sd and status for every quantity; x_lo and x_hi on request only, around the estimate."""
    estimator = estimators.get(name)
    maps = estimator(noisy, sigma=level, intervals=intervals)
    wanted = {"status"} | set(estimator.quantities) | {f"{q}_sd" for q in estimator.quantities}
    ends = {n for n in maps.data_vars if str(n).endswith(("_lo", "_hi"))}
    shares = {n for n in maps.data_vars if str(n).endswith("_prior_share")}
    assert set(maps.data_vars) - ends - shares == wanted
    assert bool(shares) == (name == "ivim-bayes")
    assert bool(ends) == (intervals and name in ("ivim", "ivim-bayes", "ivim-fat-aware"))
    for variable in maps.data_vars.values():
        assert variable.dims == ("z", "y", "x") and variable.attrs["units"] and variable.attrs["long_name"]
    for end in ends:
        quantity = str(end)[:-3]
        assert maps[end].attrs["units"] == maps[quantity].attrs["units"]
        inside = (maps[f"{quantity}_lo"] <= maps[quantity]) & (maps[quantity] <= maps[f"{quantity}_hi"])
        assert inside.where(np.isfinite(maps[f"{quantity}_lo"]), True).all()
    assert maps.sizes == {"z": 1, "y": 4, "x": 6}
    for coordinate in ("z", "y", "x"):
        assert (coordinate in noisy.coords) == (coordinate in maps.coords)
    assert "b" not in maps.coords


@EVERY
def test_status_is_a_cf_flag_variable(noisy, name):
    status = estimators.get(name)(noisy).status
    assert status.dtype == np.uint16
    masks = status.attrs["flag_masks"]
    assert masks.tolist() == [1, 2, 4, 8, 16, 32, 64, 128] and masks.dtype == np.uint16
    assert status.attrs["flag_meanings"].split() == [
        "invalid", "not_converged", "at_bound", "not_identifiable", "low_signal", "outside_domain", "ambiguous",
        "outside_mask",
    ]  # fmt: skip


@EVERY
def test_provenance(noisy, level, name):
    """Method, version, model and the protocol go along; a plain IVIM fraction says which measurand it is."""
    maps = estimators.get(name)(noisy, sigma=level)
    assert maps.attrs["method"] == name and maps.attrs["version"] and maps.attrs["model"]
    assert maps.attrs["protocol"] == noisy.attrs["protocol"]
    if "f" in maps:
        assert maps.f.attrs.get("measurand") == (None if name == "ivim-fat-aware" else "f_app")
    assert estimators.get(name)(noisy).attrs["sigma"] != maps.attrs["sigma"]


@EVERY
def test_an_estimate_goes_through_netcdf(noisy, level, name, tmp_path):
    """Attributes are strings, numbers and number arrays only, and come back as they were."""
    maps = estimators.get(name)(noisy, sigma=level, intervals=True)
    maps.to_netcdf(tmp_path / "maps.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "maps.nc", engine="h5netcdf", mask_and_scale=False) as back:
        xr.testing.assert_identical(back.load().drop_attrs(), maps.drop_attrs())
        assert back.attrs["method"] == name and set(back.attrs) == set(maps.attrs)


@EVERY
def test_the_same_call_gives_the_same_bits(noisy, name):
    xr.testing.assert_identical(estimators.get(name)(noisy), estimators.get(name)(noisy))


def test_a_registered_name_is_found_with_hyphen_or_underscore():
    assert estimators.get("ivim_segmented") is estimators.get("ivim-segmented") is estimators.ivim_segmented
    with pytest.raises(InputError, match="method 'ivm' is unknown; known are adc, ivim"):
        estimators.get("ivm")


@EVERY
def test_the_claims_stand_beside_the_estimator(name):
    assert estimators.get(name).claims.is_file() and "doi:" in estimators.get(name).source


# ---- a user's own array, masks, noise


@pytest.mark.parametrize("name", [n for n in NAMES if n != "ivim-fat-aware"])
def test_a_plain_array_with_b(noisy, level, name):
    """Only the data and b: the same estimate as from our scan; so does any order of dimensions and of b."""
    estimator = estimators.get(name)
    wanted = estimator(noisy, sigma=level)
    order = np.random.default_rng(0).permutation(noisy.sizes["b"])
    plain = xr.DataArray(noisy.values[0], dims=("row", "column", "b"), coords={"b": noisy.b.values})
    plain = plain.isel(b=order).transpose("b", "row", "column")
    maps = estimator(plain, sigma=level)
    assert maps[next(iter(estimator.quantities))].dims == ("row", "column")
    for q in estimator.quantities:
        # sums over points in another order: last bits, which samplers and valleys magnify to 1e-5 of an SD
        error = abs(maps[q].values - wanted[q].values[0]) / wanted[f"{q}_sd"].values[0]
        assert np.nanmax(error) < 1e-2 if name == "ivim-bayes" else np.nanmax(error) < 1e-4


@EVERY
def test_outside_the_mask_is_nan(noisy, level, name):
    """And inside it is what it was without: given the noise SD, a voxel owes nothing to the others."""
    mask = np.zeros((1, 4, 6), int)
    mask[0, 1:3, 2:5] = 7
    estimator = estimators.get(name)
    maps, whole = estimator(noisy, mask=mask, sigma=level), estimator(noisy, sigma=level)
    inside = mask > 0
    for q in estimator.quantities:
        assert np.isnan(maps[q].values[~inside]).all() and np.isnan(maps[f"{q}_sd"].values[~inside]).all()
        np.testing.assert_array_equal(maps[q].values[inside], whole[q].values[inside])
    assert (maps.status.values[~inside] == Status.OUTSIDE_MASK).all()
    np.testing.assert_array_equal(maps.status.values[inside], whole.status.values[inside])


def test_forms_of_mask_and_sigma(noisy, level):
    """Boolean, float with NaN, labelled in another order; sigma as number, array, labelled map."""
    mask = np.random.default_rng(1).random((1, 4, 6)) > 0.4
    wanted = estimators.ivim(noisy, mask=mask, sigma=level)
    labelled = xr.DataArray(mask, dims=("z", "y", "x")).transpose("x", "z", "y")
    for other in (mask.astype(np.uint8) * 3, np.where(mask, 1.0, np.nan), np.where(mask, 0.5, 0.0), labelled):
        xr.testing.assert_equal(estimators.ivim(noisy, mask=other, sigma=level), wanted)
    sigma_map = xr.DataArray(np.full((1, 4, 6), level), dims=("z", "y", "x"))
    for given in (np.full((1, 4, 6), level), sigma_map.transpose("y", "x", "z")):
        xr.testing.assert_equal(estimators.ivim(noisy, mask=mask, sigma=given), wanted)


def test_sigma_scales_the_standard_errors_voxel_by_voxel(noisy, level):
    steps = np.linspace(0.5, 2.0, 24).reshape(1, 4, 6)
    one, other = estimators.ivim(noisy, sigma=level), estimators.ivim(noisy, sigma=level * steps)
    np.testing.assert_array_equal(one.D, other.D)
    np.testing.assert_allclose(other.D_sd / one.D_sd, steps, rtol=1e-12)


def test_the_noise_sd_is_never_read_from_the_scan(noisy):
    """An estimator that peeked at attrs would know what a real scan does not say."""
    liar = noisy.copy()
    liar.attrs["noise_sd"] = liar.attrs["noise_sd"] * 100
    xr.testing.assert_equal(estimators.ivim(noisy), estimators.ivim(liar))


def test_protocol_values_may_be_coords_attrs_or_maps(noisy, level):
    """TE and TR of the fat-aware fit as scalar coords, attrs, along b, or a map."""
    wanted = estimators.ivim_fat_aware(noisy, sigma=level)
    te, tr = float(noisy.TE), float(noisy.TR)
    in_attrs = noisy.drop_vars(["TE", "TR"]).assign_attrs(TE=te, TR=tr)
    along = noisy.assign_coords(TE=("b", np.full(noisy.sizes["b"], te), {"units": "s"}))
    mapped = noisy.assign_coords(TE=(("x", "y"), np.full((6, 4), te), {"units": "s"}))
    for scan in (in_attrs, along, mapped):
        maps = estimators.ivim_fat_aware(scan, sigma=level)
        np.testing.assert_allclose(maps.D, wanted.D, rtol=1e-6)
    longer_te = np.tile(te + np.arange(6)[:, None] * 5e-3, (1, 4))
    longer = estimators.ivim_fat_aware(noisy.assign_coords(TE=(("x", "y"), longer_te)), sigma=level)
    # a longer echo favours blood: the same signal means a smaller density fraction, column by column
    assert (longer.f.mean("y").diff("x") < wanted.f.mean("y").diff("x")).all()


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1), (2, 1, 3, 1)])
def test_any_number_of_voxel_dimensions(noisy, level, shape):
    data = np.broadcast_to(noisy.values[0, 0, 0], (*shape, noisy.sizes["b"]))
    dims = [f"d{i}" for i in range(len(shape))]
    maps = estimators.ivim(xr.DataArray(data, dims=(*dims, "b"), coords={"b": noisy.b.values}), sigma=level)
    wanted = estimators.ivim(noisy, sigma=level).D.values[0, 0, 0]
    assert maps.D.dims == tuple(dims) and maps.D.shape == shape
    np.testing.assert_array_equal(maps.D.values, wanted)


@pytest.mark.parametrize("kind", [np.float32, np.int16, np.uint16, np.int32, ">f4"])
def test_any_kind_of_number(noisy, kind):
    stored = (noisy * 50).round().astype(kind)
    np.testing.assert_allclose(estimators.ivim(stored).D, estimators.ivim(stored.astype(float)).D, rtol=1e-9)


# ---- bad data: a status and NaN, never a crash, never a warning (warnings are errors here)

BAD = {
    "nan": (lambda row: np.where(np.arange(11) == 3, np.nan, row), Status.INVALID),
    "all nan": (lambda row: np.full(11, np.nan), Status.INVALID),
    "inf": (lambda row: np.where(np.arange(11) == 0, np.inf, row), Status.INVALID),
    "minus inf": (lambda row: np.where(np.arange(11) == 10, -np.inf, row), Status.INVALID),
    "zeros": (lambda row: np.zeros(11), Status.INVALID),
    "one negative": (lambda row: np.where(np.arange(11) == 10, -1e-3, row), Status.INVALID),
    "negative": (lambda row: -row, Status.INVALID),
    "constant": (lambda row: np.full(11, row[0]), None),
    "rising": (lambda row: row[::-1].copy(), None),
    "one point": (lambda row: np.where(np.arange(11) == 0, row, 0.0), None),
    "tiny": (lambda row: row * 1e-30, None),
    "huge": (lambda row: row * 1e30, None),
    "noise": (lambda row: np.abs(np.random.default_rng(0).normal(0, 1e-2 * row[0], 11)), None),
}


@EVERY
@pytest.mark.parametrize("given", [True, False], ids=["sigma given", "pooled"])
@pytest.mark.parametrize("alone", [True, False], ids=["one voxel", "among others"])
@pytest.mark.parametrize("what", BAD)
def test_bad_data(noisy, level, name, what, alone, given):
    change, expected = BAD[what]
    scan = noisy.isel(z=[0], y=[0], x=[0]).copy() if alone else noisy.copy()
    scan[0, 0, 0] = change(noisy.values[0, 0, 0])
    estimator = estimators.get(name)
    maps = estimator(scan, sigma=level if given else None, intervals=True).isel(z=0, y=0, x=0)
    values = [float(maps[q]) for q in estimator.quantities]
    if expected:
        assert int(maps.status) & expected
        for variable in maps.data_vars:
            assert variable == "status" or np.isnan(maps[variable]), variable
    else:
        assert np.isfinite(values).all() or int(maps.status) != 0


@EVERY
def test_a_bad_voxel_leaves_the_others_alone(noisy, level, name):
    """Given the noise SD; and pooled, an artefact must not widen everybody's errors."""
    estimator = estimators.get(name)
    spoiled = noisy.copy()
    spoiled[0, 0, 0] = np.nan
    spoiled[0, 3, 5] = 0.0
    maps, clean = estimator(spoiled, sigma=level), estimator(noisy, sigma=level)
    keep = np.ones((1, 4, 6), bool)
    keep[0, 0, 0] = keep[0, 3, 5] = False
    for q in estimator.quantities:
        np.testing.assert_array_equal(maps[q].values[keep], clean[q].values[keep])
    spoiled[0, 1, 1] = noisy.values[0, 1, 1] * np.random.default_rng(1).uniform(0, 3, 11)
    keep[0, 1, 1] = False
    first = next(iter(estimator.quantities))
    pooled, calm = (estimator(s)[f"{first}_sd"].values[keep] for s in (spoiled, noisy))
    # 22 voxels are left of 24: the pooled SD moves by a part of its own standard error, 1/sqrt(2 * 7 * 22) = 6 %
    assert np.nanmedian(pooled / calm) < 1.15


@EVERY
def test_all_voxels_bad(noisy, name):
    maps = estimators.get(name)(xr.full_like(noisy, np.nan))
    assert ((maps.status & Status.INVALID) > 0).all()


def test_pooled_with_no_freedom_left(noisy):
    """Four points and four unknowns leave no residual to tell the noise by: no standard error, and no warning."""
    maps = estimators.ivim(noisy.isel(b=[0, 3, 7, 10]))
    assert np.isnan(maps.D_sd).all() and np.isfinite(maps.D).all()


def test_low_signal_is_flagged(noisy):
    assert ((estimators.ivim(noisy * 1e-2, sigma=float(noisy.max())).status & Status.LOW_SIGNAL) > 0).all()
    assert not ((estimators.ivim(noisy, sigma=1e-3 * float(noisy.max())).status & Status.LOW_SIGNAL) > 0).any()


# ---- wrong calls, one line each


def without(scan, *names):
    return scan.drop_vars(names)


def with_b(scan, values, **attributes):
    return scan.assign_coords(b=("b", values, attributes))


WRONG = {
    "no DataArray": ("ivim", lambda s: s.values, {}, "scan is a ndarray; expected an xarray.DataArray"),
    "no b": ("ivim", lambda s: s.rename(b="echo"), {}, "expected one called b"),
    "no values of b": ("ivim", lambda s: without(s, "b"), {}, "dimension b has no coordinate"),
    "b in SI": ("ivim", lambda s: with_b(s, s.b.values * 1e6, units="s/m2"), {}, "b is in s/m2; expected s/mm2"),
    "negative b": ("ivim", lambda s: with_b(s, s.b.values - 5), {}, r"b has negative values \(-5\)"),
    "NaN in b": ("ivim", lambda s: with_b(s, np.where(s.b > 700, np.nan, s.b)), {}, "b has values that are not finite"),
    "complex": ("ivim", lambda s: s + 0j, {}, "scan is complex; expected magnitudes"),
    "words": ("ivim", lambda s: s.astype(str), {}, "expected numbers"),
    "coils": ("ivim", lambda s: s.expand_dims(coil=4), {}, "combine the coils first"),
    "too few b": ("ivim", lambda s: s.isel(b=[0, 1, 2]), {}, "b has 3 different values; at least 4 are needed"),
    "the same b": ("adc", lambda s: s.isel(b=[0, 0, 0]), {}, "b has 1 different values; at least 2"),
    "no high b": (
        "ivim-segmented", lambda s: s.isel(b=slice(0, 7)), {}, "fewer than two b-values at or above threshold 200",
    ),
    "mask shape": (
        "ivim", lambda s: s, {"mask": np.ones((2, 4, 6))}, r"mask has shape \(2, 4, 6\); the image has \(1, 4, 6\)",
    ),
    "empty mask": ("ivim", lambda s: s, {"mask": np.zeros((1, 4, 6))}, "mask is empty"),
    "sigma 0": ("ivim", lambda s: s, {"sigma": 0.0}, "sigma is 0.0; expected a positive noise SD"),
    "sigma negative": ("ivim", lambda s: s, {"sigma": -np.ones((1, 4, 6))}, "expected a positive noise SD"),
    "sigma shape": ("ivim", lambda s: s, {"sigma": np.ones(3)}, r"sigma has shape \(3,\)"),
    "unknown option": ("ivim", lambda s: s, {"threshold": 200}, "option threshold is unknown; known are"),
    "kind of option": ("ivim-segmented", lambda s: s, {"threshold": "high"}, "threshold is 'high'; expected a number"),
    "bounds no mapping": ("ivim", lambda s: s, {"bounds": (0, 1)}, "expected a mapping"),
    "bounds stranger": ("ivim", lambda s: s, {"bounds": {"T1": (0, 1)}}, "bounds name 'T1'"),
    "likelihood": ("ivim", lambda s: s, {"likelihood": "poisson"}, "expected gaussian or rician"),
    "rician alone": ("ivim", lambda s: s, {"likelihood": "rician"}, "needs sigma"),
    "no TE": ("ivim-fat-aware", lambda s: without(s, "TE"), {}, "lacks TE"),
    "no field": ("ivim-fat-aware", lambda s: without(s, "field_strength"), {}, "lacks field_strength"),
    "no suppression": ("ivim-fat-aware", lambda s: s.drop_attrs(), {}, "states no fat suppression; give residual="),
    "pdff above 1": ("ivim-fat-aware", lambda s: s, {"pdff": 40.0}, "pdff reaches 40 to 40; expected 0 to 1"),
    "pdff shape": ("ivim-fat-aware", lambda s: s, {"pdff": np.ones(3)}, r"pdff has shape \(3,\)"),
    "boundary": ("ivim-nnls", lambda s: s, {"boundary": 1.0}, "boundary is 1; expected between"),
    "prior stranger": ("ivim-bayes", lambda s: s, {"prior": {"S0": None}}, "prior names S0"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_calls_are_told_in_one_line(noisy, what):
    name, change, arguments, message = WRONG[what]
    with pytest.raises(InputError, match=message) as told:
        estimators.get(name)(change(noisy), **arguments)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("method", estimators.registry.values(), ids=lambda method: method.name)
def test_help_of_an_estimator_tells_what_it_is_called_with(method):
    text = method.__doc__
    assert method.title in text and method.source in text
    assert all(f"{name}=" in text.replace("\n", " ") for name in method.options)
    assert f"`{method.encoding}` with its coordinate" in text.replace("\n", " ")
