"""Check that an installed package has its library of kernels, and that the library loads on this machine.

python scripts/backend/check_installed.py
"""

import ctypes
import sys

from intaglio.runtime import kernels

library = kernels.library()
if library is None:
    sys.exit("the installed package has no library of kernels")
ctypes.CDLL(str(library))
print(library, kernels.instructions())
