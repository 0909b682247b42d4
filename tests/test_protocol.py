"""Protocols: every preset is sound and sourced, survives JSON, TOML and pickle; wrong input is told in one line."""

import copy
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from bonemri.errors import InputError
from bonemri.simulator import equations, sequences
from bonemri.simulator.acquisition import FatSuppression, Protocol, noise, protocols
from bonemri.simulator.constants import PROTON

# Positions of the ten marrow fat peaks (ppm): the last four are the glycerol and olefinic ones
PEAKS = (0.90, 1.30, 1.59, 2.03, 2.25, 2.77, 4.10, 4.30, 5.21, 5.31)


@pytest.mark.parametrize("name", list(protocols))
def test_every_preset_is_sound(name: str) -> None:
    protocol = protocols.get(name)
    assert protocol.name == name and protocol.title
    assert re.search(r"doi:10\.\d{4,}/\S+|https://\S+", protocol.source), "a preset states where it comes from"
    equation = equations.get(protocol.equation)
    assert all(setting.name in protocol for setting in equation.settings)
    assert protocol.sequence in sequences.registry
    assert protocol.fat_suppression.efficiency(4.65) == 0, "the suppression would remove water"


def test_the_reference_protocol_is_the_stated_one() -> None:
    protocol = protocols.ivim_marrow
    assert protocol.table["b"] == (0, 10, 20, 30, 50, 80, 100, 200, 400, 600, 800)
    assert (protocol["TE"], protocol["TR"], protocol.field_strength, protocol.directions) == (0.060, 3.0, 3.0, 3)
    removed = protocol.fat_suppression.efficiency(PEAKS)
    assert np.all(removed[:6] == 0.95) and np.all(removed[6:] == 0)


GRADIENT, SLEW = 0.050, 200.0  # T/m, T/m/s: what the strongest whole-body coils in clinical use give together


def least_spacing(pixel: float, dwell: float, samples: int, polarity: str) -> float:
    """Least time from echo to echo of one train (s), the plateau of each readout sampled alone.

    Bipolar: plateau and the way to the other plateau. Monopolar: plateau, ramps, and the quickest lobe that undoes all.
    """
    strength = 1 / (PROTON * samples * pixel * dwell)
    ramp, plateau = strength / SLEW, samples * dwell
    if strength > GRADIENT:
        return float("inf")
    if polarity == "bipolar":
        return plateau + 2 * ramp
    area = strength * (plateau + ramp)
    peak = min(GRADIENT, np.sqrt(area * SLEW))
    return plateau + 2 * ramp + area / peak + peak / SLEW


@pytest.mark.parametrize("name", [name for name in protocols if name.startswith("dixon") and "spin" not in name])
def test_a_train_of_gradient_echoes_can_be_played(name: str) -> None:
    protocol = protocols.get(name)
    assert protocol.encoding == "echo"
    readout, times = protocol.readout, np.asarray(protocol["TE"])
    samples = readout["matrix"][-1]
    length = samples * readout["dwell"]
    assert times[0] > length / 2 and times[-1] + length / 2 < protocol["TR"]
    shots = np.asarray(protocol.table.get("shot", np.zeros(times.size)))
    spacing = min(np.diff(times[shots == shot]).min() for shot in np.unique(shots))
    least = least_spacing(readout["fov"][-1] / samples, readout["dwell"], samples, readout["polarity"])
    # the reference protocol does not, and says so: its times are published, its pixels assumed
    told = re.search(r"least spacing ([\d.]+) ms", protocol.notes)
    assert (least < spacing) if told is None else float(told[1]) == round(1e3 * least, 1)


def test_the_namespace_lists_loads_and_refuses() -> None:
    assert "ivim_marrow" in protocols and "ivim_marrow" in dir(protocols) and len(protocols) == len(list(protocols))
    assert protocols.ivim_marrow is protocols.get("ivim-marrow")
    with pytest.raises(AttributeError, match="unknown protocol 'nothing'"):
        _ = protocols.nothing
    with pytest.raises(InputError, match=r"unknown protocol 'nothing': expected a \.toml file or one of .*ivim_marrow"):
        protocols.get("nothing")


def test_a_protocol_is_a_mapping_of_its_settings() -> None:
    protocol = protocols.ivim_marrow.replace(TE=tuple(np.linspace(0.05, 0.06, 11)))
    assert isinstance(protocol, Mapping)
    assert set(protocol) == {"b", "TE", "TR", "field_strength"} and len(protocol) == 4
    assert protocol["TE"].shape == protocol["b"].shape == (protocol.points,)
    assert isinstance(protocol["TR"], float)
    with pytest.raises(KeyError):
        _ = protocol["TI"]
    dims, values, attrs = protocol.coords()["TE"]
    assert dims == ("b",) and attrs["units"] == "s" and values[-1] == 0.06
    assert protocol.coords()["TR"][0] == ()


@pytest.mark.parametrize("name", list(protocols))
def test_json_pickle_and_copy_give_the_same_protocol(name: str) -> None:
    protocol = protocols.get(name)
    for twin in (Protocol.from_json(protocol.to_json()), pickle.loads(pickle.dumps(protocol)), copy.deepcopy(protocol)):
        assert twin == protocol and hash(twin) == hash(protocol) and twin is not protocol
    assert protocol.replace(TR=protocol["TR"] + 0.0123) != protocol


@pytest.mark.parametrize("encoding", ["echo", "te"])
def test_an_encoding_of_echo_times_is_the_echo_time_of_the_equation(encoding: str) -> None:
    fields = {"name": "mine", "sequence": "gradient_echo", "equation": "spin_echo", "field_strength": 3.0}
    protocol = Protocol(**fields, encoding=encoding, table={encoding: (0.01, 0.02)}, constants={"TR": 1.0})
    assert protocol["TE"].tolist() == [0.01, 0.02] and "TE" in protocol and set(protocol.coords()) == set(protocol)
    with pytest.raises(InputError, match=f"TE is 0.01: column {encoding} holds the echo times already"):
        protocol.replace(TE=0.01)
    with pytest.raises(InputError, match=r"TR is 0\.015: expected a repetition time longer than TE"):
        protocol.replace(TR=0.015)


def test_a_frozen_protocol_stays_as_it_is() -> None:
    protocol = protocols.ivim_marrow
    with pytest.raises(AttributeError):
        protocol.averages = 2
    with pytest.raises(TypeError):
        protocol.table["b"] = (0,)
    protocol["b"][0] = 7.0  # a copy
    assert protocol["b"][0] == 0.0


def test_replace_moves_a_setting_between_constants_and_table() -> None:
    protocol = protocols.ivim_marrow.replace(b=(0, 500), TE=(0.05, 0.06))
    assert "TE" not in protocol.constants and protocol.table["TE"] == (0.05, 0.06)
    assert protocol.replace(TE=0.05).table == {"b": (0.0, 500.0)}


def test_a_users_own_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'sequence = "diffusion_spin_echo"\nequation = "ivim"\nencoding = "b"\nfield_strength = 3.0\n'
        "[constants]\nTE = 0.05\nTR = 2.5\n[table]\nb = [0, 100, 600]\n"
    )
    protocol = protocols.get(str(path))
    assert protocol.name == "mine" and protocol.points == 3 and protocol.fat_suppression == FatSuppression()


def test_suppression_by_bands() -> None:
    suppression = FatSuppression("SPAIR", ((0.0, 3.0, 0.9), (2.0, 4.5, 0.5)))
    np.testing.assert_array_equal(suppression.efficiency([1.0, 2.5, 4.0, 5.0]), [0.9, 0.9, 0.5, 0.0])
    assert suppression.residual([1.0, 4.0, 5.0], [2.0, 1.0, 1.0]) == pytest.approx((0.2 + 0.5 + 1.0) / 4, rel=1e-15)
    np.testing.assert_array_equal(suppression.with_efficiency(1.0).efficiency([1.0, 4.0, 5.0]), [1, 1, 0])
    np.testing.assert_array_equal(FatSuppression().with_efficiency(1.0).efficiency(PEAKS), 1)


CHANGES = [
    ({"TE": 60}, "TE is 60: expected 0 to 2 s (given in ms?)"),
    ({"TR": 3000}, "TR is 3000: expected 0 to 100 s (given in ms?)"),
    ({"TE": float("nan")}, "TE is nan: expected a finite number (s)"),
    ({"TE": "long"}, "TE is 'long': expected a finite number (s)"),
    ({"TR": 0.05}, "TR is 0.05: expected a repetition time longer than TE (s)"),
    ({"flip_angle": 90}, "flip_angle is 90: expected 0 to 6.28319 rad (given in degrees?)"),
    ({"b": (0, -5)}, "b is -5: expected 0 to 100000 s/mm2"),
    ({"b": ()}, "table column b is []: expected at least one point"),
    ({"b": 500}, "encoding is 'b': not a column of the table (empty)"),
    ({"table": {"b": 5}}, "table column b is 5: expected a list of numbers"),
    ({"TE": (0.05, 0.06)}, "table column TE has 2 values and b has 11: expected the same length"),
    ({"constants": {"b": 3, "TE": 0.06, "TR": 3}}, "constants is 'b': also a column of the table; state it once"),
    ({"echo_time": 0.06}, "constants is 'echo_time': not a setting; known: b, TE"),
    ({"constants": 3}, "constants is 3: expected names with their values"),
    ({"field_strength": 128}, "field_strength is 128: expected 0.001 to 25 T (given in MHz?)"),
    ({"averages": 1.5}, "averages is 1.5: expected a whole number from 1 up"),
    ({"coils": 0}, "coils is 0: expected a whole number from 1 up"),
    ({"directions": True}, "directions is True: expected a whole number from 1 up"),
    ({"averaging": "median"}, "averaging is 'median': expected magnitude or complex"),
    ({"combination": "best"}, "combination is 'best': expected sum_of_squares or optimal"),
    ({"sequence": 3}, "sequence is 3: expected text"),
    ({"fat_suppression": 0.9}, "fat_suppression is 0.9: expected method and bands"),
    ({"fat_suppression": {"bands": [[0, 1]]}}, "expected rows of [low ppm, high ppm, efficiency]"),
    ({"fat_suppression": {"bands": [[3, 0, 0.9]]}}, "the lower limit comes first"),
    ({"fat_suppression": {"bands": [[0, 3, 95]]}}, "efficiency is 95: expected a fraction from 0 to 1"),
]


@pytest.mark.parametrize(("changes", "message"), CHANGES, ids=[str(c) for c, _ in CHANGES])
def test_wrong_values_are_told_in_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        protocols.ivim_marrow.replace(**changes)
    assert "\n" not in str(caught.value)


PLAIN = json.loads(protocols.ivim_marrow.to_json())
FILES = [
    ("b = [0, 10", "not TOML"),
    ('sequence = "diffusion_spin_echo"', "equation is missing; a protocol needs name, sequence, equation"),
    ("echoes = 3", "echoes is not a field of a protocol; known: name, sequence"),
]


@pytest.mark.parametrize(("text", "message"), FILES)
def test_wrong_files_are_told_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        protocols.get(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_or_binary_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none.toml: cannot be read"):
        protocols.get(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="binary.toml: not TOML"):
        protocols.get(tmp_path / "binary.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "protocol: not JSON"),
        ("[1]", "protocol: holds list: expected names with their values"),
        (json.dumps(PLAIN | {"echoes": 1}), "protocol: echoes is not a field"),
        (json.dumps(PLAIN | {"table": {"b": [0, None]}}), "b is None: expected a finite number"),
    ],
)
def test_wrong_json_is_told_in_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        Protocol.from_json(text)
    assert "\n" not in str(caught.value)


def test_the_choices_of_noise_are_those_of_the_protocol() -> None:
    protocol = protocols.ivim_marrow
    for averaging in ("magnitude", "complex"):
        for combination in ("sum_of_squares", "optimal"):
            noisy = protocol.replace(averaging=averaging, combination=combination, averages=2, coils=2)
            settings = {n: getattr(noisy, n) for n in ("averages", "averaging", "coils", "combination")}
            assert noise.add(np.ones((3, 2)), 0.1, np.random.default_rng(0), **settings).shape == (3, 2)
