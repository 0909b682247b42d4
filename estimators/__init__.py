"""Floor 2, data to biomarker with uncertainty. Estimators know the simulator's equations and never see a phantom.

`registry` maps method names to estimators. Another package registers its own through the entry-point group
`bonemri.estimators`: the entry point loads an `Estimator`, or any callable with `name`, `model` and `claims`.
"""

from importlib.metadata import entry_points

from ..errors import InputError
from .estimate import ENTRY_POINTS, Estimator, estimator
from .fat.few_echoes import dixon_2pt, dixon_3pt
from .fat.magnitude import dixon_magnitude
from .fat.many_echoes import dixon, dixon_mixed
from .perfusion.bayes import ivim_bayes
from .perfusion.fat_aware import ivim_fat_aware
from .perfusion.least_squares import adc, ivim, ivim_segmented
from .perfusion.nnls import ivim_nnls
from .status import Status

FAT = (dixon, dixon_2pt, dixon_3pt, dixon_magnitude, dixon_mixed)
registry: dict[str, Estimator] = {
    e.name: e for e in (adc, ivim, ivim_segmented, ivim_nnls, ivim_bayes, ivim_fat_aware, *FAT)
}


def get(name: str) -> Estimator:
    """The estimator with this method name (hyphens or underscores), ours or an installed one.

    Raises
    ------
    InputError
        If no estimator has that name.
    """
    method = name.replace("_", "-")
    if method in registry:
        return registry[method]
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name.replace("_", "-") == method:
            loaded: Estimator = entry.load()
            return loaded
    known = [*registry, *sorted(e.name for e in entry_points(group=ENTRY_POINTS))]
    raise InputError(f"method {name!r} is unknown; known are {', '.join(known)}")


__all__ = [
    "Estimator",
    "Status",
    "adc",
    "dixon",
    "dixon_2pt",
    "dixon_3pt",
    "dixon_magnitude",
    "dixon_mixed",
    "estimator",
    "get",
    "ivim",
    "ivim_bayes",
    "ivim_fat_aware",
    "ivim_nnls",
    "ivim_segmented",
    "registry",
]
