"""What a table of exchanging pools refuses, and rates in detailed balance."""

from __future__ import annotations

import numpy as np
import pytest

from bonemri.errors import InputError
from bonemri.simulator.acquisition.events.timeline import ADC, RF, Block, Timeline
from bonemri.simulator.engines import exchange

THREE = {
    "T1": [0.3, 0.8, 1.0],
    "T2": [4e-4, 3e-3, 15.4e-6],
    "density": [0.4, 0.15, 0.45],
    "rates": np.zeros((3, 3)),
    "lineshape": ("", "", "super_lorentzian"),
}

WRONG = [
    ({"rates": [[0, 1, 2], [1, 0, 2]]}, r"rates has shape \(2, 3\): expected square"),
    ({"rates": np.zeros((0, 0))}, "one pool at least"),
    ({"rates": "fast"}, "rates is 'fast': expected numbers"),
    ({"T1": [1.0, 2.0]}, r"T1 has shape \(2,\): expected \(3,\) or \(spin, 3\), as rates has 3 pools"),
    ({"T1": [1.0, np.nan, 1.0]}, "T1 of pool 1 of spin 0 is nan: expected above 0 s"),
    ({"T2": [1.0, 1.0, np.inf]}, "T2 of pool 2 of spin 0 is inf: expected a finite time"),
    ({"density": [[0.4, 0.15, 0.45], [0.4, np.nan, 0.45]]}, "density of pool 1 of spin 1 is nan: expected a number"),
    ({"density": [0.4, -0.15, 0.45]}, "density of pool 1 of spin 0 is -0.15"),
    ({"rates": [[0, 1, 0], [-1, 0, 0], [0, 0, 0]]}, "rate from pool 1 to pool 0 of spin 0 is -1"),
    ({"rates": [[0, 1, 0], [np.nan, 0, 0], [0, 0, 0]]}, "rate from pool 1 to pool 0 of spin 0 is nan"),
    ({"rates": np.eye(3)}, "rate from pool 0 to pool 0 of spin 0 is 1: expected 0"),
    ({"rates": [[0, 1, 0], [1, 0, 0], [0, 0, 0]]}, "between pools 0 and 1 of spin 0 flows 0.4 there and 0.15 back"),
    ({"lineshape": ("", "", "box")}, "lineshape of pool 2 is 'box': expected one of gaussian, lorentzian"),
    ({"lineshape": "gaussian"}, "lineshape is 'gaussian': expected 3 names"),
    ({"lineshape": ("gaussian",) * 3}, "no pool is liquid"),
    ({"T1D": [1e-3, 0, 0]}, "T1D of pool 0 of spin 0 is 0.001: expected 0, as the pool is liquid"),
    ({"T1D": [[0, 0, 1e-3], [0, 0, 0]]}, "T1D of pool 2 of spin 1 is 0: expected above 0 s"),
    ({"T1D": [0, 0, 1e-3], "lineshape": ("", "", "lorentzian")}, "lorentzian', which has no second moment"),
    ({"offset": [0, np.inf, 0]}, "offset of pool 1 of spin 0 is inf"),
    ({"B1": [1.0, np.nan]}, "B1 of spin 1 is not finite"),
    ({"position": [0, np.nan, 0]}, "position of spin 0 is not finite"),
    ({"position": [0, 0]}, r"position has shape \(2,\)"),
    ({"B1": np.ones(4), "offset": np.zeros((3, 3))}, "offset has 3 spins: expected 1 or 4"),
    ({"B1": np.ones(0)}, "B1 has 0 spins"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_wrong_pools_are_told(changes, message):
    with pytest.raises(InputError, match=message):
        exchange.Pools(**{**THREE, **changes})


def test_balanced_rates_of_a_map():
    density = np.array([[0.4, 0.6], [0.5, 0.25], [0.0, 0.0], [1.0, 0.0]])
    rates = exchange.balanced(np.broadcast_to([[9.0, 12.0], [7.0, 0]], (4, 2, 2)), density)
    np.testing.assert_allclose(rates[:, 0, 1], [12, 12, 0, 0])
    np.testing.assert_allclose(rates[:, 1, 0], [8, 24, 0, 0])
    assert not rates[:, [0, 1], [0, 1]].any()
    assert len(exchange.Pools(1.0, 0.1, density, rates)) == 4


def test_pools_that_do_not_exchange_are_separate():
    """Each set is computed alone: as the whole would be, and as its pools would be without the others."""
    density = [0.3, 0.2, 0.1, 0.3, 0.1]
    rates = exchange.balanced([[0, 0, 0, 15.0, 0], *[[0.0] * 5] * 4], density)
    pools = exchange.Pools(
        T1=[0.2, 0.9, 1.0, 1.0, 0.4],
        T2=[4e-4, 0.02, 1e-5, 1.5e-5, 0.06],
        density=density,
        rates=rates,
        offset=[0, 20.0, 0, 0, -440.0],
        lineshape=("", "", "gaussian", "super_lorentzian", ""),
    )
    # a solid pool alone goes with the first set
    assert [s.tolist() for s in pools.separate()] == [[0, 2, 3], [1], [4]]
    timeline = Timeline((Block(RF([600.0] * 3, 3e-4, frequency=2e3), ADC(4, 1e-3, delay=1e-3), duration=0.03),))
    found = exchange.steady_state(timeline, pools, per_pool=True)
    affine = exchange.propagator(timeline, pools)[0]
    whole = np.linalg.solve(np.eye(len(affine)) - affine[:, :-1], affine[:, -1])
    np.testing.assert_allclose(found.magnetisation[0][[0, 1, 4]].ravel(), whole[:9], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.magnetisation[0][[2, 3], 2], whole[9:], rtol=0, atol=1e-12)
    alone = exchange.steady_state(timeline, exchange.Pools(0.4, 0.06, 0.1, [[0.0]], offset=-440.0))
    np.testing.assert_allclose(found.signal[0, 4], alone.signal[0], rtol=0, atol=1e-14)
    assert not found.signal[0, [2, 3]].any()
    start = pools.equilibrium * np.array([1, 1, -1])
    played, again = (exchange.simulate(timeline, pools, initial=start, per_pool=each) for each in (True, False))
    np.testing.assert_allclose(played.signal.sum(axis=1), again.signal, rtol=0, atol=1e-14)
    assert abs(again.signal).max() > 0.01
