"""Independent witnesses: numerical physics that imports no equation and knows no phantom.

`bloch` isochromats, `exchange` pools that exchange (Bloch-McConnell, magnetisation transfer), `epg` and `epg_exchange`
extended phase graphs, `walkers` and `capillaries` diffusion and flow under any gradient, `susceptibility` the field of
a structure. All play the events of `acquisition.events.timeline`, but for the phase graphs, which take trains.
"""

from . import bloch, capillaries, epg, epg_exchange, exchange, susceptibility, walkers

__all__ = ["bloch", "capillaries", "epg", "epg_exchange", "exchange", "susceptibility", "walkers"]
