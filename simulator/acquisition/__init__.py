"""What the scanner does: the protocol it is told to run, and the noise it adds."""

from .protocol import FatSuppression, Protocol, Protocols, protocols

__all__ = ["FatSuppression", "Protocol", "Protocols", "protocols"]
