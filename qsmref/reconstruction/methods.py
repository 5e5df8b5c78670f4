"""The list of methods of each step: what each is called, and which function it is.

Importing this costs nothing, so that the command line can show the names: a method's module is
imported when the method is first used. What a new method takes is in ``docs/new-method.md``.
"""

from __future__ import annotations

#: :func:`qsmref.reconstruction.unwrap`
UNWRAP = ("romeo", "laplacian", "poisson")

#: :func:`qsmref.reconstruction.remove_background`: module of this package and function in it.
BACKGROUND: dict[str, tuple[str, str]] = {
    "none": ("background", "no_removal"),
    "pdf": ("pdf", "pdf"),
    "sharp": ("sharp", "sharp"),
    "v-sharp": ("sharp", "v_sharp"),
    "resharp": ("sharp", "resharp"),
    "lbv": ("lbv", "lbv"),
    "harperella": ("harperella", "harperella"),
    "ismv": ("sharp", "iterative_smv"),
}

#: :func:`qsmref.reconstruction.invert`: the same.
INVERSION: dict[str, tuple[str, str]] = {
    "single-step": ("singlestep", "single_step"),
    "medi": ("medi", "medi"),
    "tkd": ("closedform", "tkd"),
    "tikhonov": ("closedform", "tikhonov"),
    "tv": ("singlestep", "total_variation"),
    "total-field": ("totalfield", "total_field_inversion"),
}

#: Inversions that take the total field, so that no background removal is needed before them.
TOTAL_FIELD = ("single-step", "total-field")

#: :func:`qsmref.reconstruction.fit_echoes`
ECHO_FIT = ("anchored", "curved", "nonlinear", "linear")

#: :func:`qsmref.reconstruction.brain_mask`, or the program of FSL with that name
MASK = ("surface", "bet")

#: :func:`qsmref.reconstruction.phase.remove_phase_offset`, or nothing
PHASE_OFFSET = ("none", "mcpc-3d-s")
