"""Two echoes: which of two images, the one or its exchange, and when it is called ambiguous."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from bonemri import estimators, phantoms, simulator, validation
from bonemri.errors import InputError
from bonemri.estimators import Status
from bonemri.estimators.fat import exchange as fat_exchange
from bonemri.estimators.fat.candidates import Candidates, noise_level
from bonemri.estimators.fat.exchange import Pairs, Steps
from bonemri.estimators.fat.train import Train
from bonemri.simulator import protocols, tissues, water_fat
from bonemri.validation.scenes import fields

OPPOSED, IN_PHASE = 1.15e-3, 2.30e-3
AMBIGUOUS = np.uint16(Status.AMBIGUOUS)


def signal(pdff, field, times, r2star=0.0, b0=3.0, spectrum="fat_marrow"):
    """Of one phase, (..., point)."""
    c = water_fat.fat_signal(np.array(times), b0, water_fat.spectrum_of(spectrum), tissues.water_shift())
    p, psi, rate = (np.asarray(v, float)[..., None] for v in (pdff, field, r2star))
    return (1 - p + p * c) * np.exp((2j * np.pi * psi - rate) * np.array(times) + 0.4j)


def image(data, times, b0=3.0, **attrs):
    """As a user would hand it over: (z, y, x, echo)."""
    data = data.reshape(*(1,) * (4 - data.ndim), *data.shape)
    named = {"field_strength": b0, "temperature": tissues.BODY_TEMPERATURE, **attrs}
    return xr.DataArray(data, dims=("z", "y", "x", "echo"), coords={"echo": list(times)}, attrs=named)


def noisy(data, snr, rng):
    return data + (rng.normal(size=data.shape) + 1j * rng.normal(size=data.shape)) / snr


def smooth(rng, shape, width, sd=1.0):
    """A random image of that SD, smooth over so many voxels."""
    from scipy import ndimage

    made = ndimage.gaussian_filter(rng.normal(size=shape), width, mode="wrap")
    return sd * (made - made.mean()) / made.std()


def tissue(rng, n=48):
    """Muscle and fat whose borders run through voxels: averaged from a grid four times as fine."""
    fine = np.where(smooth(rng, (4 * n, 4 * n), 16) > 0, 0.02, 0.95)
    return fine.reshape(n, 4, n, 4).mean(axis=(1, 3))


def swapped(maps, field, times):
    """Where the exchanged image was taken: its field is half a period or so from the true one."""
    period = 1 / abs(times[1] - times[0])
    off = (maps.fieldmap.values.reshape(np.shape(field)) - field + period / 2) % period - period / 2
    return np.abs(off) > period / 5


def ambiguous(maps, shape):
    return (maps.status.values.reshape(shape) & AMBIGUOUS) > 0


# ---- without doubt


@pytest.fixture(scope="module")
def regions():
    """Fat about muscle and a stripe of half and half, in a field that bends by 100 Hz: pdff and Hz, (40, 40)."""
    y, x = np.mgrid[0:40, 0:40] / 40
    pdff = np.where((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.1, 0.1, 0.9)
    pdff[20:22] = 0.5
    return pdff, 60 * np.sin(3 * x) + 40 * y - 20


@pytest.mark.parametrize("times", [[1.171e-3, 2.342e-3], [1.3e-3, 2.1e-3], [2.342e-3, 1.171e-3]])
def test_errors_cover(regions, times):
    """No swap although each voxel alone has two solutions; errors cover in noise, which a smoothed field hides from."""
    pdff, field = regions
    clean = signal(pdff, field, times)
    maps = estimators.dixon_2pt(image(clean, times), sigma=1e-3, field_range=200)
    # the field is averaged over a voxel's neighbours: what its curvature leaves enters in second order
    assert np.abs(maps.pdff.values[0] - pdff).max() < 0.005
    assert not ambiguous(maps, pdff.shape).any()
    some = image(noisy(clean, 50, np.random.default_rng(0)), times)
    found = estimators.dixon_2pt(some, sigma=0.02, field_range=200)
    covered = np.abs(found.pdff.values[0] - pdff) < 1.96 * found.pdff_sd.values[0]
    assert 0.95 - 0.02 < covered.mean() < 0.95 + 0.02  # three times sqrt(.05 .95 / 1600), and a little
    assert np.isnan(estimators.dixon_2pt(image(clean, times)).pdff_sd).all()


# ---- what fat's spectrum decides


@pytest.mark.parametrize("offset", [-600, -300, -217, 0, 100, 217, 300, 434, 600])
@pytest.mark.parametrize(("times", "snr"), [((1.0e-3, 2.2e-3), 20), ((1.3e-3, 2.1e-3), 20), ((1.0e-3, 2.2e-3), 50)])
def test_mixed_tissue_is_settled_whatever_its_field(times, snr, offset):
    """A tenth of the voxels holds a border of muscle and fat: at these times evidence of more than 10 sigma."""
    rng = np.random.default_rng([7, abs(offset), snr])
    pdff = tissue(rng)
    field = offset + smooth(rng, pdff.shape, 12, 20.0)
    data = noisy(signal(pdff, field, times, r2star=40.0), snr, rng)
    maps = estimators.dixon_2pt(image(data, times), sigma=1 / snr)
    assert not swapped(maps, field, times).any()
    assert ambiguous(maps, pdff.shape).mean() < 0.03


@pytest.mark.parametrize("b0", [1.5, 3.0, 7.0])
def test_other_field_strengths(b0):
    """Echo times and offsets that scale with the field strength make the same data but for the steps of the field."""
    times = np.array([1.0e-3, 2.2e-3]) * 3 / b0
    rng = np.random.default_rng(3)
    pdff = tissue(rng)
    field = 300 * b0 / 3 + smooth(rng, pdff.shape, 12, 20.0 * b0 / 3)
    for sigma in (1 / 30, None):
        maps = estimators.dixon_2pt(image(noisy(signal(pdff, field, times, b0=b0), 30, rng), times, b0), sigma=sigma)
        assert not swapped(maps, field, times).any()
        assert ambiguous(maps, pdff.shape).mean() < 0.03


def test_a_scan_of_the_spine_is_settled_but_for_a_hundredth():
    """As a scanner makes it, with T1 and T2 of its tissues: the field within 100 Hz, or 434 Hz off, locked on fat."""
    spine = phantoms.spine(seed=4, resolution=5e-3)
    protocol = protocols.dixon_marrow.replace(echo=[OPPOSED, IN_PHASE])
    clean = simulator.scan(spine, protocol, rung="pools")
    sd = float(clean.attrs["signal_reference"]) / 20
    truth = spine.truth.pdff.values
    seen = np.isfinite(truth) & (np.abs(clean.values).max(axis=-1) > 5 * sd)
    rng = np.random.default_rng(11)
    turn = 2j * np.pi * np.array([OPPOSED, IN_PHASE])
    for offset in (0.0, 434.0):
        field = offset + smooth(rng, truth.shape, 8, 40.0)
        data = noisy(clean.values * np.exp(field[..., None] * turn), 1 / sd, rng)
        maps = estimators.dixon_2pt(clean.copy(data=data), sigma=sd)
        wrong = swapped(maps, field, (OPPOSED, IN_PHASE)) & (np.abs(maps.pdff.values - truth) > 0.3)
        assert not (wrong & seen & ~ambiguous(maps, truth.shape)).any()
        assert (ambiguous(maps, truth.shape) & seen).sum() < 0.03 * seen.sum()


def some_scene(kind, rng, n=32):
    """Fat fraction and amount of signal, (n, n)."""
    amount = np.ones((n, n))
    if kind == "uniform":
        pdff = np.full((n, n), rng.uniform())
    elif kind == "sharp":
        pdff = np.where(smooth(rng, (n, n), 4) > 0, 0.02, 0.95)
    elif kind == "mixed":
        pdff = tissue(rng, n)
    elif kind == "marrow":
        pdff = np.clip(rng.uniform(0.2, 0.7) + smooth(rng, (n, n), 2, 0.1), 0.0, 1.0)
    else:
        y, x = np.mgrid[:n, :n]
        pdff, amount = np.full((n, n), 0.02), np.zeros((n, n))
        for _ in range(4):
            disk = (y - rng.uniform(4, n - 4)) ** 2 + (x - rng.uniform(4, n - 4)) ** 2 < rng.uniform(1, 7) ** 2
            amount[disk], pdff[disk] = 1.0, rng.choice([0.02, 0.4, 0.6, 0.95])
    return pdff, amount


SCENES = st.sampled_from(["uniform", "sharp", "mixed", "marrow", "islands"])


@settings(max_examples=40, deadline=None)
@given(
    kind=SCENES,
    seed=st.integers(0, 10**6),
    offset=st.floats(-600, 600),
    snr=st.sampled_from([10, 20, 50]),
    times=st.sampled_from([(OPPOSED, IN_PHASE), (1.0e-3, 2.2e-3), (1.23e-3, 2.46e-3), (IN_PHASE, 1.5 * IN_PHASE)]),
    told=st.booleans(),
)
def test_no_swap_that_is_not_called_ambiguous(kind, seed, offset, snr, times, told):
    """Over the whole of the field, any composition, R2* that nobody told: a decision of 6 sigma is never wrong.

    A swap moves PDFF by 30 points or more; noise alone moves it by 5 standard errors once in a million voxels.
    """
    rng = np.random.default_rng(seed)
    pdff, amount = some_scene(kind, rng)
    field = offset + smooth(rng, pdff.shape, 8, rng.uniform(5, 60))
    clean = signal(pdff, field, times, r2star=rng.uniform(0, 120)) * amount[..., None]
    maps = estimators.dixon_2pt(image(noisy(clean, snr, rng), times), sigma=1 / snr if told else None)
    error = np.abs(maps.pdff.values[0] - pdff)
    wrong = swapped(maps, field, times) & (error > 0.3) & (amount > 0)
    noise = 5 * estimators.dixon_2pt(image(noisy(clean, snr, rng), times), sigma=1 / snr).pdff_sd.values[0]
    assert not (wrong & (error > noise) & ~ambiguous(maps, pdff.shape)).any()


@pytest.mark.slow
@pytest.mark.parametrize("times", [(OPPOSED, IN_PHASE), (1.0e-3, 2.2e-3)])
def test_no_swap_on_many_scenes(times, drawn):
    """100 scenes; BONEMRI_SEED draws others."""
    first = drawn
    for k in range(100):
        rng = np.random.default_rng([first, k])
        kind = ("uniform", "sharp", "mixed", "marrow", "islands")[k % 5]
        pdff, amount = some_scene(kind, rng, 48)
        snr = (10, 20, 50)[k % 3]
        field = rng.uniform(-600, 600) + smooth(rng, pdff.shape, 8, rng.uniform(5, 60))
        data = noisy(signal(pdff, field, times, r2star=rng.uniform(0, 120)) * amount[..., None], snr, rng)
        maps = estimators.dixon_2pt(image(data, times), sigma=1 / snr)
        wrong = swapped(maps, field, times) & (np.abs(maps.pdff.values[0] - pdff) > 0.3 + 5 * maps.pdff_sd.values[0])
        assert not (wrong & (amount > 0) & ~ambiguous(maps, pdff.shape)).any(), (first, k)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.floats(-2000, 2000))
def test_where_the_spectrum_decides_an_offset_of_the_field_changes_nothing(seed, shift):
    rng = np.random.default_rng(seed)
    times = (1.0e-3, 2.2e-3)
    pdff = tissue(rng, 32)
    data = noisy(signal(pdff, smooth(rng, pdff.shape, 8, 20.0), times), 40, rng)
    one = estimators.dixon_2pt(image(data, times), sigma=1 / 40)
    off = estimators.dixon_2pt(image(data * np.exp(2j * np.pi * shift * np.array(times)), times), sigma=1 / 40)
    settled = ~ambiguous(one, pdff.shape)
    if settled.any():
        np.testing.assert_array_equal(one.status, off.status)
        np.testing.assert_allclose(off.pdff.values[0][settled], one.pdff.values[0][settled], atol=1e-9)
        turned = np.exp(2j * np.pi * (off.fieldmap - one.fieldmap - shift).values[0] * (times[1] - times[0]))
        np.testing.assert_allclose(turned[settled], 1.0, atol=1e-9)


def test_islands_are_settled_each_by_itself():
    """Air between: mixed tissue at 0 Hz, at 434 Hz, and pure water, which stays open whatever its neighbours are."""
    rng = np.random.default_rng(2)
    pdff = np.concatenate([tissue(rng, 32), tissue(rng, 32), np.zeros((32, 32))], axis=1)
    field = np.repeat([0.0, 434.0, 0.0], 32)[None] + smooth(rng, pdff.shape, 8, 10.0)
    air = np.zeros(pdff.shape, bool)
    air[:, 31:33] = air[:, 63:65] = True
    data = noisy(signal(pdff, field, (1.0e-3, 2.2e-3)) * ~air[..., None], 50, rng)
    maps = estimators.dixon_2pt(image(data, (1.0e-3, 2.2e-3)), sigma=0.02)
    open_ = ambiguous(maps, pdff.shape)
    assert not (swapped(maps, field, (1.0e-3, 2.2e-3)) & ~air)[:, :63].any()
    assert open_[:, :63][~air[:, :63]].mean() < 0.03
    assert open_[:, 65:].all()


def stepped(rng, values, n=64):
    """Tiles of water, fat, a mixture, or of any composition voxel by voxel, in a field of two constant parts."""
    tile = np.arange(n) // 8
    pdff = rng.choice([0.0, 1.0, 0.3, np.nan], size=(n // 8, n // 8))[tile[:, None], tile]
    pdff = np.where(np.isnan(pdff), rng.random((n, n)), pdff)
    return pdff, np.where(smooth(rng, (n, n), 10) > 0, *values)


@pytest.mark.parametrize("phase", [0.0, 0.1])
@pytest.mark.parametrize("r2star", [20.0, 140.0])
@pytest.mark.parametrize(("times", "step"), [((1.0e-3, 2.2e-3), 300.0), ((1.3e-3, 2.7e-3), 200.0)])
def test_a_step_of_the_field_swaps_nothing(times, step, r2star, phase):
    """Nearer to the step of the exchange (399 and 280 Hz) than to none: what lies beyond decides for itself or is open.

    The two differ by 100 and 80 Hz, seven times the 12 Hz that noise makes of a step between voxels of one tissue; what
    the exchange adds to a mixture's field differs from that of water and fat by no more than half of this. A voxel in
    a thousand is what the claims allow to noise.
    """
    wrong = seen = 0
    for seed in range(6):
        rng = np.random.default_rng([12, seed])
        pdff, field = stepped(rng, (-step / 2, step / 2))
        water = signal(np.zeros(pdff.shape), field, times, r2star) * (1 - pdff[..., None])
        fat = signal(np.ones(pdff.shape), field, times, r2star) * pdff[..., None] * np.exp(1j * phase)
        maps = estimators.dixon_2pt(image(noisy(water + fat, 20, rng), times), sigma=1 / 20, r2star=60.0)
        sure = ~ambiguous(maps, pdff.shape)
        off = np.abs(maps.pdff.values[0] - pdff) > 0.3
        wrong, seen = wrong + (sure & off & swapped(maps, field, times)).sum(), seen + sure.size
    assert wrong < 0.001 * seen


def test_smooth_pairs_alone_join_what_a_step_parts():
    """A tenth of fat, 8 x 20 voxels, a step of 300 Hz: whichever way round the other half is, it is for itself."""
    times = (1.0e-3, 2.2e-3)
    field = np.tile(np.repeat([0.0, 300.0], 10), 8)
    found, train = candidates_of(np.full(160, 0.1), field, times, np.random.default_rng(0), 100)
    pairs = Pairs.of(np.ones((8, 20), bool), np.ones(160, bool), None)
    variance, across = found.variance(np.full(160, 0.01)), field[pairs.first] != field[pairs.second]
    for turned in (False, True):
        label = turned & (field > 0)
        told = fat_exchange.smoothness(found, variance, label, pairs, Steps.of(pairs, train, 10.0))
        assert (told[across] <= 0).all() and (told[~across] > 0).all()
        region = np.arange(160)
        for root in fat_exchange.regions(told, pairs, 160, alike=True)[0]:
            region = root[region]
        assert len(set(zip(region, field, strict=True))) == len(set(region)) == 2


def test_a_voxel_off_the_field_about_it_keeps_its_own():
    """A line 40 Hz off a constant field: seven times the SD of its phase at SNR 100 and four of the mean's, and open.

    The phases of two echoes of size 1 and .01 of noise turn by .0141 rad: 1.9 Hz at 1.2 ms.
    """
    times = (1.0e-3, 2.2e-3)
    rng = np.random.default_rng(4)
    field = np.zeros((21, 21))
    field[10, 10] = 40.0
    data = image(noisy(signal(np.full((21, 21), 0.1), field, times), 100, rng), times)
    maps = estimators.dixon_2pt(data, sigma=0.01, field_range=150)
    assert abs(maps.fieldmap.values[0, 10, 10] - 40.0) < 4 * 1.9 and ambiguous(maps, field.shape)[10, 10]
    assert np.abs(maps.fieldmap.values[0])[0:6].max() < 4 * 1.9


# ---- what it does not


@pytest.mark.parametrize("kind", ["uniform", "sharp"])
@pytest.mark.parametrize("offset", [0, 434])
def test_what_tells_nothing_is_ambiguous_unless_the_field_is_vouched_for(kind, offset):
    """No borders inside voxels: a scanner that locked on fat makes the same image with the names changed."""
    rng = np.random.default_rng([1, offset])
    pdff = np.full((32, 32), 0.3) if kind == "uniform" else some_scene("sharp", rng)[0]
    field = offset + smooth(rng, pdff.shape, 8, 20.0)
    data = image(noisy(signal(pdff, field, (OPPOSED, IN_PHASE)), 30, rng), (OPPOSED, IN_PHASE))
    assert ambiguous(estimators.dixon_2pt(data, sigma=1 / 30), pdff.shape).all()
    maps = estimators.dixon_2pt(data, sigma=1 / 30, field_range=200)
    assert ambiguous(maps, pdff.shape).mean() < 0.005  # some voxels stand 4 SD off their neighbours by noise
    # right where the user is right; who vouches for a field that is not, gets the exchange of it
    assert (swapped(maps, field, (OPPOSED, IN_PHASE)) == (offset == 434)).all()
    # both fields lie within, or neither does
    for wide in (600, 60 if offset == 434 else 1000):
        some = estimators.dixon_2pt(data, sigma=1 / 30, field_range=wide)
        assert ambiguous(some, pdff.shape).all() or wide == 60


def test_one_peak_of_fat_never_decides():
    """In phase and opposed, a single peak and its exchange are one image: no tissue is mixed enough."""
    peak = ([1.30], [1.0])
    rng = np.random.default_rng(5)
    half = 0.5 / ((tissues.water_shift() - 1.30) * 42.577478518 * 3.0)
    times = (half, 2 * half)
    pdff = tissue(rng)
    data = noisy(signal(pdff, smooth(rng, pdff.shape, 8, 20.0), times, spectrum=peak), 100, rng)
    maps = estimators.dixon_2pt(image(data, times), sigma=0.01, spectrum=peak)
    assert ambiguous(maps, pdff.shape).all()


def test_evidence_against_the_range_is_told():
    rng = np.random.default_rng(9)
    times = (1.0e-3, 2.2e-3)
    pdff = tissue(rng)
    field = 400 + smooth(rng, pdff.shape, 8, 20.0)
    data = image(noisy(signal(pdff, field, times), 50, rng), times)
    assert ambiguous(estimators.dixon_2pt(data, sigma=0.02), pdff.shape).mean() < 0.03
    assert ambiguous(estimators.dixon_2pt(data, sigma=0.02, field_range=150), pdff.shape).mean() > 0.9


def test_a_phase_of_the_other_sign_is_remarked_upon():
    """Conjugate data are those of the exchange in a field half a period off: only a range that is told contradicts."""
    rng = np.random.default_rng(1)
    times = (1.0e-3, 2.2e-3)
    pdff = tissue(rng)
    data = noisy(signal(pdff, smooth(rng, pdff.shape, 8, 20.0), times), 50, rng)
    assert "remark" not in estimators.dixon_2pt(image(data, times), sigma=0.02).attrs
    assert "other sign" in estimators.dixon_2pt(image(data.conj(), times), sigma=0.02).attrs["remark"]
    told = estimators.dixon_2pt(image(data.conj(), times), sigma=0.02, field_range=150)
    assert ambiguous(told, pdff.shape).mean() > 0.9


@pytest.mark.parametrize("ppm", [-0.8, 0.8])
def test_magnetism_of_fat_is_no_evidence(ppm):
    """Fat of another susceptibility makes a step of the field where its fraction steps: more than the exchange does."""
    rng = np.random.default_rng(6)
    pdff = some_scene("sharp", rng, 48)[0]
    data = noisy(signal(pdff, ppm * 127.7 * pdff, (OPPOSED, IN_PHASE)), 200, rng)
    maps = estimators.dixon_2pt(image(data, (OPPOSED, IN_PHASE)), sigma=0.005)
    assert ambiguous(maps, pdff.shape).all()


@pytest.mark.parametrize("phase", [-0.12, 0.12])
@pytest.mark.parametrize("times", [(OPPOSED, IN_PHASE), (1.171e-3, 2.342e-3), (1.23e-3, 2.46e-3), (1.0e-3, 2.2e-3)])
def test_a_phase_of_fat_that_nobody_told_swaps_nothing(times, phase):
    """At 1.171 ms a phase of -.1 rad undoes what the spectrum tells, and more turns it: nothing is decided."""
    rng = np.random.default_rng(8)
    pdff = tissue(rng, 96)
    field = smooth(rng, pdff.shape, 12, 20.0) + 300
    water = signal(np.zeros(pdff.shape), field, times) * (1 - pdff[..., None])
    fat = signal(np.ones(pdff.shape), field, times) * pdff[..., None] * np.exp(1j * phase)
    maps = estimators.dixon_2pt(image(noisy(water + fat, 200, rng), times), sigma=1 / 200)
    wrong = swapped(maps, field, times) & (np.abs(maps.pdff.values[0] - pdff) > 0.3)
    assert not (wrong & ~ambiguous(maps, pdff.shape)).any()


@pytest.mark.parametrize("shape", [(1,), (40,), (1, 1, 1), (2, 3, 4), (9, 10, 11)])
def test_images_of_any_size(shape):
    """One voxel tells nothing of which image it is; a range of the field does."""
    pdff = np.linspace(0.05, 0.4, int(np.prod(shape))).reshape(shape)
    data = image(signal(pdff, 30.0, (OPPOSED, IN_PHASE)), (OPPOSED, IN_PHASE))
    if len(shape) == 1:
        data = data.isel(z=0, y=0)
    for sigma in (0.01, None):
        maps = estimators.dixon_2pt(data, sigma=sigma, field_range=150)
        np.testing.assert_allclose(maps.pdff.values.reshape(shape), pdff, atol=1e-6)
        assert not ambiguous(maps, shape).any()
    if pdff.size == 1:
        assert ambiguous(estimators.dixon_2pt(data, sigma=0.01), shape).all()


def test_what_is_told_of_the_range():
    data = image(signal(np.full((3, 3), 0.2), 0.0, (OPPOSED, IN_PHASE)), (OPPOSED, IN_PHASE))
    maps = estimators.dixon_2pt(data, sigma=0.01)
    assert maps.attrs["field_range"] == "not given" and maps.attrs["ambiguous"] == 1.0
    maps = estimators.dixon_2pt(data, sigma=0.01, field_range=150)
    assert maps.attrs["field_range"] == 150.0 and maps.attrs["ambiguous"] == 0.0
    for wrong, message in (
        (-100, "field_range is -100; expected a positive number"),
        ("wide", "field_range is 'wide'; expected a positive number"),
        (True, "field_range is True; expected a positive number"),
        (np.inf, "field_range is inf; expected a positive number"),
        (1.5, "field_range is 1.5; expected Hz, 10 or more .given in ppm or kHz"),
    ):
        with pytest.raises(InputError, match=message):
            estimators.dixon_2pt(data, sigma=0.01, field_range=wrong)


# ---- the parts


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 40))
def test_regions_find_the_orientation_that_bonds_agree_on(seed, n):
    """Bonds of any strength without contradiction: every pair within a region has its sign, at any noise of sizes."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.5
    a, b = np.array([(i, j) for i in range(n) for j in range(i) if rng.random() < 0.3] or [(1, 0)]).T
    bond = rng.uniform(10, 30, a.size) * np.where(truth[a] == truth[b], 1, -1)
    growth, flipped = fat_exchange.regions(bond, Pairs(a, b, np.ones(a.size)), n)
    region = np.arange(n)
    for root in growth:
        region = root[region]
    assert (region[a] == region[b]).all()  # every bond is sure
    assert ((flipped[a] != flipped[b]) == (bond < 0)).all()
    assert set(region) == set(range(region.max() + 1))


def test_weak_bonds_join_no_regions():
    """Two firm rows of ten, with one weak bond between."""
    a = np.array([*range(9), *range(10, 19), 9])
    b = np.array([*range(1, 10), *range(11, 20), 10])
    for between, joined in ((8.0, False), (9.5, True)):  # twice the bond is held against 18
        bond = np.full(19, 20.0)
        bond[-1] = between
        growth, _ = fat_exchange.regions(bond, Pairs(a, b, np.ones(19)), 20)
        region = np.arange(20)
        for root in growth:
            region = root[region]
        assert (region[0] == region[9] and region[10] == region[19]) and (region[0] == region[19]) == joined


def test_chance_settles_no_region():
    """A row of voxels: what adds up of both signs, however large, and what two pairs say, is no decision."""

    def settles(told):
        n = told.size + 1
        pairs = Pairs(np.arange(n - 1), np.arange(1, n), np.ones(n - 1))
        return bool(fat_exchange.settled(told, pairs, np.zeros(n, int))[1][0])

    rng = np.random.default_rng(3)
    # one of 10 000 draws lies 4 SD out; 6 are asked for
    assert not any(settles(9 * rng.choice([-1.0, 1.0], 400)) for _ in range(300))
    assert settles(np.full(400, 9.0)) and settles(np.full(400, -0.5)) and settles(np.full(6, 9.0))
    assert not settles(np.array([9.5, 9.5])) and not settles(np.full(400, 0.04))


def candidates_of(pdff, field, times, rng, snr):
    train = Train.of("test", {"echo": np.array(times), "field_strength": 3.0}, 2, "fat_marrow", 37.0)
    s = noisy(signal(pdff, field, times), snr, rng).reshape(-1, 2)
    return Candidates.of(s, np.ones_like(s, float), train), train


@settings(max_examples=20, deadline=None)
@given(pdff=st.floats(0, 1), field=st.floats(-400, 400), seed=st.integers(0, 1000))
def test_one_candidate_is_the_truth_and_both_fit_the_magnitudes(pdff, field, seed):
    times = (1.0e-3, 2.2e-3)
    found, train = candidates_of(np.array([pdff]), np.array([field]), times, np.random.default_rng(seed), 1e12)
    turn = np.exp(2j * np.pi * field * (times[1] - times[0]))
    near = np.abs(found.turn[:, 0] - turn).argmin()
    # near the double root of the quadratic half of the digits are left
    assert abs(found.turn[near, 0] - turn) < 1e-4 and abs(found.fraction[near, 0] - pdff) < 1e-4
    size = np.abs(1 - found.fraction + found.fraction * train.fat[:, None, None])
    ratio = size[0] / size[1]
    inside = (found.fraction[:, 0] > 0) & (found.fraction[:, 0] < 1)
    np.testing.assert_allclose(ratio[inside, 0], np.broadcast_to(ratio[near, 0], inside.sum()), rtol=1e-4)


def test_the_variance_of_a_candidate_is_that_of_noise():
    """20 000 draws know a variance to 1 %; second order adds 2 % at SNR 50."""
    rng = np.random.default_rng(0)
    n, snr = 20_000, 50
    for pdff in (0.1, 0.2, 0.4, 0.9):  # at 0 and 1 half of the draws stop at the end
        found, _ = candidates_of(np.full(n, pdff), np.zeros(n), (1.0e-3, 2.2e-3), rng, snr)
        which = int(pdff > 0.6)
        angle = np.angle(found.turn[which])
        assert angle.var() == pytest.approx(np.median(found.variance(np.full(n, 1 / snr))[which]), rel=0.06), pdff


def test_the_steps_of_an_image_are_found():
    """Steps of 12 Hz along both axes, under noise: the median of 2 x 64 x 63 squares is known to 2 %."""
    rng = np.random.default_rng(1)
    times = (OPPOSED, IN_PHASE)
    field = np.cumsum(rng.normal(size=64))[:, None] * 12 + np.cumsum(rng.normal(size=64)) * 12
    found, train = candidates_of(np.full((64, 64), 0.1), field, times, rng, 100)
    pairs = Pairs.of(np.ones((64, 64), bool), np.ones(64 * 64, bool), None)
    label = np.zeros(64 * 64, bool)
    exchange = fat_exchange.Exchange.of(found, found.variance(np.full(64 * 64, 0.01)), label, pairs)
    # along each axis all pairs share 63 steps: 126 squares of normal numbers, whose median is known to 15 %
    assert exchange.ordinary_step(pairs, train) == pytest.approx(12.0, rel=0.3)
    near = Steps.of(pairs, train, 12.0)
    assert near.cost(np.exp(1j * np.pi), np.full(pairs.first.size, 1e-4)).min() > fat_exchange.SURE


def test_the_noise_of_an_image_is_found():
    """From magnitudes of a smooth image, 4096 voxels: to 2 % of itself, and some for structure."""
    rng = np.random.default_rng(1)
    pdff = 0.3 + smooth(rng, (64, 64), 8, 0.05)
    s = noisy(signal(pdff, 100.0, (OPPOSED, IN_PHASE)), 40, rng).reshape(-1, 2)
    found = noise_level(s, np.ones((64, 64), bool))
    assert found == pytest.approx(1 / 40, rel=0.06)
    assert noise_level(s[:1], np.ones((1, 1), bool)) == 0.0


# ---- three echoes


@pytest.mark.parametrize("r2star", [0.0, 60.0, 120.0])
@pytest.mark.parametrize("offset", [0, 434, 600])
def test_three_even_echoes_do_not_swap_for_want_of_R2star(offset, r2star):
    """A decay that nobody told made the exchanged image fit better; told, or left open, it does not."""
    times = (1.15e-3, 2.30e-3, 3.45e-3)
    for kind in ("uniform", "sharp"):
        rng = np.random.default_rng([4, offset, len(kind)])
        pdff = some_scene(kind, rng)[0]
        field = offset + smooth(rng, pdff.shape, 8, 20.0)
        data = image(noisy(signal(pdff, field, times, r2star=r2star), 50, rng), times)
        for told in (None, r2star):
            maps = estimators.dixon_3pt(data, sigma=0.02, r2star=told)
            wrong = swapped(maps, field, times) & (np.abs(maps.pdff.values[0] - pdff) > 0.3)
            assert not (wrong & ~ambiguous(maps, pdff.shape)).any()


@pytest.mark.parametrize("rate", [15.0, 150.0])
def test_one_number_for_R2star_is_not_believed_in_every_voxel(rate):
    """Islands with air between, told 60 /s: what the exchange gains by a wrong rate is no evidence; a map's is."""
    times = 1.15e-3 * np.arange(1, 4)
    wrong = seen = sure = 0
    for seed in range(4):
        made = fields.scene(np.random.default_rng([seed, 3]), kind="islands", times=times, r2star=rate, snr=20)
        data = image(made.data, times)
        told = estimators.dixon_3pt(data, mask=made.mask, sigma=made.sigma, r2star=60.0)
        known = estimators.dixon_3pt(data, mask=made.mask, sigma=made.sigma, r2star=np.full(made.mask.shape, rate))
        for maps in (told, known):
            off = swapped(maps, made.field[0], times) & (np.abs(maps.pdff.values - made.pdff) > 0.3)[0]
            wrong += (off & ~ambiguous(maps, off.shape) & made.mask[0]).sum()
            seen += made.mask.sum()
        sure += (~ambiguous(known, off.shape) & made.mask[0]).sum()
    assert wrong < 0.001 * seen
    assert sure > 0.8 * seen / 2


def test_a_number_for_R2star_beyond_those_of_tissue():
    """200 /s told, 200 and 250 true: none is swapped for want of rates that the field map considers."""
    times = 1.15e-3 * np.arange(1, 4)
    for rate, most in (
        (200.0, 0.25),
        (250.0, 1.0),
    ):  # what is open of a smooth field by the claim; where the rate is off
        made = fields.scene(np.random.default_rng(6), kind="smooth", times=times, r2star=rate, snr=20)
        maps = estimators.dixon_3pt(image(made.data, times), mask=made.mask, sigma=made.sigma, r2star=200.0)
        off = swapped(maps, made.field[0], times) & (np.abs(maps.pdff.values - made.pdff) > 0.3)[0]
        open_ = ambiguous(maps, off.shape)
        assert (off & ~open_ & made.mask[0]).sum() < 0.001 * made.mask.sum()
        assert (open_ & made.mask[0]).sum() < most * made.mask.sum()


# ---- on trial


def test_it_can_be_tried_alone():
    """Its claims, on images too, though the study's bias budget is of six echoes."""
    trial = validation.run("dixon-2pt", quick=True)
    assert trial.passed and any(row["measurand"] == "swaps" for row in trial.table)
