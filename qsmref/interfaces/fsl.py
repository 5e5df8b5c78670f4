"""Programs of FSL as steps of ours: their failures become one sentence, too."""

from __future__ import annotations

import os
from pathlib import Path

from nipype.interfaces import fsl
from nipype.interfaces.base import traits

from ..problems import DataError, ExitCode
from .base import Step, problems_in

# Compressed files would cost more than most steps; nipype asks for this when a node is made.
os.environ.setdefault("FSLOUTPUTTYPE", "NIFTI")


class _Program(Step):
    """What a program of FSL says when it fails, told like a problem of our own."""

    def _run_interface(self, runtime, *arguments):
        with problems_in(Path(runtime.cwd)):
            try:
                return super()._run_interface(runtime, *arguments)
            except RuntimeError as error:
                said = (getattr(runtime, "stderr", "") or "").strip().splitlines()
                program = self._cmd.split()[0]
                raise DataError(
                    f"{program} of FSL failed ({said[-1] if said else 'it said nothing'}); its "
                    f"command was: {self.cmdline}",
                    ExitCode.INTERNAL,
                ) from error


class _BetInput(fsl.BET.input_spec):
    # nipype would round it to two decimals, and the sidecar has it as it was given.
    frac = traits.Float(argstr="-f %g", desc="fractional intensity, 0 to 1")


class Bet(_Program, fsl.BET):
    """Brain extraction (Smith 2002, doi:10.1002/hbm.10062)."""

    input_spec = _BetInput


class Fast(_Program, fsl.FAST):
    """Bias field of a T1-weighted brain (Zhang et al. 2001, doi:10.1109/42.906424)."""


class Flirt(_Program, fsl.FLIRT):
    """Linear registration (Jenkinson et al. 2002, doi:10.1006/nimg.2002.1132)."""


class ApplyMask(_Program, fsl.ApplyMask):
    """Image inside a mask, zero outside."""


def bet(fraction: float | None = None) -> Bet:
    """`bet` with a centre that is looked for, and the mask; doi:10.1002/hbm.10062.

    Parameters
    ----------
    fraction : float, optional
        Fractional intensity, 0 to 1: larger values give smaller brains. By default the program's
        own, 0.5.
    """
    program = Bet(mask=True, robust=True, output_type="NIFTI")
    if fraction is not None:
        program.inputs.frac = fraction
    return program


def fast() -> Fast:
    """`fast` on a brain that is T1-weighted, of which the restored image is wanted."""
    return Fast(
        img_type=1,
        number_classes=3,
        output_biascorrected=True,
        no_pve=True,
        out_basename="fast",
        output_type="NIFTI",
    )


def flirt() -> Flirt:
    """`flirt` with six degrees of freedom, by mutual information."""
    return Flirt(
        dof=6,
        cost="mutualinfo",
        out_matrix_file="rigid.mat",
        out_file="moved.nii",
        output_type="NIFTI",
    )


def mask() -> ApplyMask:
    """`fslmaths -mas`."""
    return ApplyMask(out_file="brain.nii", output_type="NIFTI")
