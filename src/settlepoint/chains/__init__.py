"""What iterates along a chain: every entry needs the entries before it, and all are found at once."""

from settlepoint.chains.decoded import Decoded
from settlepoint.chains.decoding import jacobi_decode
from settlepoint.chains.jacobi import jacobi_sample

__all__ = ["Decoded", "jacobi_decode", "jacobi_sample"]
