"""The claims file: what it says, and one line for each way to get it wrong."""

import pytest

from bonemri.errors import InputError
from bonemri.validation import claims

GOOD = """
[identifiable]
f = 0.1
D = 0.1
D_star = 0.2

[bounds.ivim]
f = [0.0, 1.0]

[[claim]]
id = "efficiency"
estimator = "ivim"
kind = "efficiency"
quantity = ["f", "D"]
rung = "matched"
snr = 100
domain = "identifiable"
limit = 0.93
source = "x"

[[claim]]
id = "fat"
estimator = "ivim"
kind = "model_error"
quantity = "D"
rung = "pools"
domain = {pdff = [0.3, 0.7], words = "all"}
limit = 1e-5
expect = "fails"
reason = "residual fat hardly diffuses"
source = "doi:10.1002/mrm.26550"
"""


@pytest.fixture
def sheet(tmp_path):
    def write(text):
        path = tmp_path / "a.claims.toml"
        path.write_text(text)
        return claims.read(path)

    return write


def test_a_list_of_quantities_is_several_claims(sheet):
    read = sheet(GOOD)
    assert [c.id for c in read.claims] == ["efficiency:f", "efficiency:D", "fat"]
    assert read.claims[0].window == (0.93, float("inf")) and read.claims[0].snr == (100.0,)
    assert read.claims[2].window == (-1e-5, 1e-5) and read.claims[2].expect == "fails"
    assert read.bounds["ivim"]["f"] == (0.0, 1.0)


def test_sentences_read_as_claims(sheet):
    read = sheet(GOOD)
    assert read.claims[0].sentence == (
        "efficiency of f (bound variance / variance) at least 93 %; rung matched, SNR 100, where identifiable"
    )
    assert read.claims[2].sentence.startswith(
        "known to miss: model error of D (limit - truth) within +-0.01 x 1e-3 mm2/s; rung pools"
    )


def test_domains(sheet):
    read = sheet(GOOD)
    inside, outside = read.claims[0].domain, read.claims[2].domain
    assert read.worst({"f": 0.05, "D": 0.02, "D_star": 0.3}) == pytest.approx(1.5)
    assert read.worst({"adc": 3.0}) == 0.0
    assert inside.contains({}, 1.0) and not inside.contains({}, 1.01)
    assert outside.contains({"pdff": 0.3}, 9.0) and not outside.contains({"pdff": 0.71}, 0.0)
    assert not outside.contains({}, 0.0)  # a case without PDFF is in no range of PDFF


def test_an_unbounded_relative_bound_is_elsewhere():
    for words, expected in [
        ("elsewhere", True),
        ("over_twice", True),
        ("identifiable", False),
        ("all_under_half", False),
    ]:
        for worst in (float("inf"), float("nan")):  # at f = 0 the relative bound is 0/0
            assert claims.Domain(words).contains({}, worst) is expected


def test_ranges_of_a_ratio_and_outside_of_them():
    recoverable = claims.Domain(ranges=(("f", 0.02, 1.0), ("D_star_over_D", 5.0, float("inf"))))
    rest = claims.Domain(outside=recoverable.ranges)
    for values, expected in [
        ({"f": 0.02, "D": 1e-3, "D_star": 5e-3}, True),
        ({"f": 0.01, "D": 1e-3, "D_star": 5e-3}, False),
        ({"f": 0.1, "D": 2e-3, "D_star": 5e-3}, False),
    ]:
        assert recoverable.contains(values, 0.0) is expected
        assert rest.contains(values, 0.0) is not expected


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('kind = "efficiency"', 'kind = "speed"', "kind = 'speed'; one of efficiency"),
        ('rung = "matched"', 'rung = "ladder"', "rung = 'ladder'; one of matched, pools"),
        ("limit = 0.93", 'limit = "high"', "limit = 'high'; a number or [low, high]"),
        ("limit = 0.93", "limit = [2, 1]", "low must not be above high"),
        ("limit = 0.93", "limit = true", "limit = True"),
        ("limit = 0.93\n", "", "limit is missing"),
        ("snr = 100", "snr = -1", "snr = -1; a positive number"),
        ('domain = "identifiable"', 'domain = "easy"', "domain = 'easy'; one of all, identifiable"),
        ("pdff = [0.3, 0.7]", "pdff = 0.3", "domain.pdff = 0.3; [low, high]"),
        ('quantity = ["f", "D"]', "quantity = []", "quantity = []; a name"),
        ('estimator = "ivim"', "estimator = 3", "estimator = 3; text"),
        ('id = "efficiency"', "", "without id"),
        ('id = "fat"', 'id = "efficiency:f"', "'efficiency:f' occurs twice"),
        ('reason = "residual fat hardly diffuses"\n', "", "needs a reason and a source"),
        ('reason = "', 'because = "', "unknown field 'because'"),
        ("f = 0.1\n", "f = 0\n", "[identifiable] f = 0"),
        ("[identifiable]", "[identifable]", "unknown table 'identifable'"),
        ("[[claim]]", "[[claim", "not valid TOML"),
        ('kind = "efficiency"', 'kind = "coverage"', "a coverage needs [low, high]"),
        ('kind = "efficiency"', 'kind = "sensitivity"', "needs a confounder and its strength"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(sheet, old, new, told):
    assert old in GOOD
    with pytest.raises(InputError) as caught:
        sheet(GOOD.replace(old, new, 1))
    message = str(caught.value)
    assert told in message and "a.claims.toml" in message and "\n" not in message


def test_no_file_and_no_claims(tmp_path, sheet):
    with pytest.raises(InputError, match="cannot read these claims"):
        claims.read(tmp_path / "none.claims.toml")
    with pytest.raises(InputError, match=r"no \[\[claim\]\]"):
        sheet("[identifiable]\nf = 0.1\n")
