"""Floor 1, physics: models of the signal, the acquisition, tissue values. It knows no phantom and no estimator."""

from . import equations, tissues
from .acquisition import FatSuppression, Protocol, protocols
from .model import Quantity, cramer_rao_bound, information, numerical_jacobian
from .scan import add_noise, scan
from .symbolic import Equation

__all__ = [
    "Equation",
    "FatSuppression",
    "Protocol",
    "Quantity",
    "add_noise",
    "cramer_rao_bound",
    "equations",
    "information",
    "numerical_jacobian",
    "protocols",
    "scan",
    "tissues",
]
