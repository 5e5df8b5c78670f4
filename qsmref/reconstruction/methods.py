"""Names of the methods of each step: importing this costs nothing, so the command line can too.

The dispatchers hold the functions; a test compares their tables with these names.
"""

from __future__ import annotations

#: :func:`qsmref.reconstruction.unwrap`
UNWRAP = ("romeo", "laplacian", "poisson")

#: :func:`qsmref.reconstruction.remove_background`
BACKGROUND = ("none", "pdf", "sharp", "v-sharp", "resharp", "lbv", "harperella", "ismv")

#: :func:`qsmref.reconstruction.invert`
INVERSION = ("single-step", "medi", "tkd", "tikhonov", "tv", "total-field")

#: Inversions that take the total field, so that no background removal is needed before them.
TOTAL_FIELD = ("single-step", "total-field")

#: :func:`qsmref.reconstruction.fit_echoes`
ECHO_FIT = ("curved", "nonlinear", "linear")

#: :func:`qsmref.reconstruction.brain_mask`
MASK = ("surface",)

#: :func:`qsmref.reconstruction.phase.remove_phase_offset`, or nothing
PHASE_OFFSET = ("none", "mcpc-3d-s")
