"""The pulse sequences, one readable description each: what a scanner plays and what a spin pool answers.

`registry` maps a sequence's name to a `Sequence`. Its `signal` takes one pool (and the protocol) and returns the
signal of one mol 1H per litre of it; `simulator.scan` multiplies with the density and sums over pools. Another
sequence joins by one file and one entry.
"""

from ...errors import InputError
from .diffusion import diffusion_spin_echo
from .gradient_echo import gradient_echo
from .prepared_ute import ute_inversion, ute_saturation
from .pulseq import pulseq_file
from .sequence import Pool, Sequence
from .spin_echo import spin_echo, spin_echo_dixon, turbo_spin_echo
from .stimulated_echo import press, steam
from .ute import ute_3d, ute_cones
from .ute_2d import ute_2d
from .ute_mt import ute_mt
from .zte import zte, zte_31p

registry: dict[str, Sequence] = {
    s.name: s
    for s in (
        diffusion_spin_echo,
        gradient_echo,
        spin_echo,
        spin_echo_dixon,
        turbo_spin_echo,
        steam,
        press,
        ute_2d,
        ute_3d,
        ute_cones,
        ute_inversion,
        ute_saturation,
        ute_mt,
        zte,
        zte_31p,
        pulseq_file,
    )
}


def get(name: str) -> Sequence:
    """The sequence of that name; InputError lists the known ones."""
    if name not in registry:
        raise InputError(f"unknown sequence {name!r}: expected one of {', '.join(registry)}")
    return registry[name]


__all__ = ["Pool", "Sequence", "get", "registry"]
