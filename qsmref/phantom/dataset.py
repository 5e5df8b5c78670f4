"""A simulated BIDS dataset: one subject or a cohort, with the truth in a derivative beside it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from .. import __version__
from ..files import write_json, write_text
from ..images import save
from ..problems import DataError, ExitCode
from .acquisition import (
    T1W_FLIP_ANGLE,
    T1W_REPETITION_TIME,
    Acquisition,
    check_parameters,
    simulate,
)
from .cohort import Participant, at_visit, check_effect, draw_participants, participant_head
from .grid import ParameterError
from .head import Head, Region
from .labels import LabelImage

#: Name of this program in the datasets it makes.
GENERATOR = "qsmref-phantom"

#: Folder of the truth below the dataset.
TRUTH = Path("derivatives") / "truth"

_COLUMNS = {
    "participant_id": {"Description": "Unique participant identifier"},
    "group": {"Description": "Group the participant belongs to"},
    "age": {"Description": "Age of the participant", "Units": "year"},
    "sex": {"Description": "Sex of the participant", "Levels": {"F": "female", "M": "male"}},
}

_DSEG_COLUMNS = {
    "index": {"Description": "Label in the image", "Format": "integer"},
    "name": {"Description": "Unique name of the region"},
    "abbreviation": {"Description": "Name of the structure, the same for left and right"},
    "hemisphere": {"Description": "Side", "Levels": {"L": "left", "R": "right"}},
    "description": {"Description": "What the region is"},
    "susceptibility_ppm": {
        "Description": "Susceptibility given to the region before texture, relative to water",
        "Units": "ppm",
    },
}


def write_dataset(
    out: str | os.PathLike,
    head: Head | LabelImage | None = None,
    *,
    participants: int = 1,
    groups: Sequence[str] = ("control",),
    effect_ppb: Mapping[str, float] | None = None,
    variation: float | None = None,
    sessions: int = 1,
    change_ppb: Mapping[str, float] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
    **parameters,
) -> list[Participant]:
    """Write a raw BIDS dataset with multi-echo phase and magnitude, T1w, and the truth.

    Parameters
    ----------
    out : path
        Folder to make. It must be empty or absent.
    head : Head or LabelImage, optional
    participants : int
    groups : sequence of str
        Participants take turns in them.
    effect_ppb : mapping, optional
        Region name to ppb, added in the first group.
    variation : float, optional
        See :func:`participant_head`; by default 1 for several participants, and 0 for one, who
        then has exactly the given head.
    sessions : int
        Visits of each participant, ``ses-1`` and so on; with one there is no such folder. They
        differ in noise, receiver and phase offset.
    change_ppb : mapping, optional
        Region name to ppb, added in the first group from each visit to the next.
    seed : int
        The same arguments and seed give the same bytes.
    overwrite : bool
        Replace a dataset that this program wrote into `out` before.
    progress : callable, optional
        Takes one line of text per participant.
    **parameters
        Those of :func:`qsmref.phantom.acquisition.simulate`.

    Raises
    ------
    DataError
        One sentence: the folder holds something else, or a parameter is out of its range.
    OSError
        The folder cannot be written.
    """
    head = Head() if head is None else head
    out = Path(out)
    people = draw_participants(participants, groups, seed)
    if variation is None:
        variation = 1.0 if participants > 1 else 0.0
    if sessions < 1:
        raise ParameterError(f"The number of sessions must be at least 1, not {sessions}.")
    for effect in (effect_ppb, change_ppb):
        if effect:
            check_effect(head.regions, effect)
    check_parameters(head, **parameters)
    _prepare(out, overwrite)
    told = dict(parameters)
    if sessions > 1:
        words = f"change per session in {groups[0]}"
        told["sessions"] = sessions
        told |= {f"{words}, {name}": f"{v:g} ppb" for name, v in (change_ppb or {}).items()}
    _write_root(out, people, head, groups, effect_ppb, variation, seed, told)
    for number, person in enumerate(people, start=1):
        if progress is not None:
            place = f"{number} of {len(people)}"
            progress(f"sub-{person.label} ({place}): {person.group}, {person.age} years")
        for visit in range(sessions):
            effect = None
            if person.group == groups[0]:
                effect = at_visit(effect_ppb, change_ppb, visit)
            own = participant_head(head, person, variation, effect)
            acquisition = simulate(own, seed=person.seed, visit=visit, **parameters)
            session = str(visit + 1) if sessions > 1 else None
            write_raw(out, person.label, acquisition, session)
            write_truth(out / TRUTH, person.label, acquisition, own.regions, session)
    return people


def _place(root: Path, label: str, session: str | None) -> tuple[Path, str]:
    """Folder of a participant's visit, and how its file names start."""
    folder, prefix = Path(root) / f"sub-{label}", f"sub-{label}"
    return (
        (folder, prefix)
        if session is None
        else (folder / f"ses-{session}", f"{prefix}_ses-{session}")
    )


def write_raw(root: Path, label: str, acquisition: Acquisition, session: str | None = None) -> None:
    """Write the echoes and the T1-weighted image of one visit of a participant."""
    protocol = acquisition.protocol
    like = _reference_image(acquisition.affine)
    place, prefix = _place(root, label, session)
    folder = place / "anat"
    common = {
        "Modality": "MR",
        "MagneticFieldStrength": protocol.field_strength,
        "ImagingFrequency": round(protocol.imaging_frequency, 6),
        "MRAcquisitionType": "3D",
        "ScanningSequence": "GR",
        "SequenceVariant": "SP",
        "SpoilingState": True,
    }
    gradient_echo = {
        **common,
        "PulseSequenceType": "Spoiled multi-echo gradient echo",
        "RepetitionTime": protocol.repetition_time,
        "FlipAngle": protocol.flip_angle,
        "PhaseEncodingDirection": "j",
        "BipolarReadout": protocol.bipolar,
    }
    for number, time in enumerate(protocol.echo_times, start=1):
        for part, array in (("mag", acquisition.magnitude), ("phase", acquisition.phase)):
            stem = f"{prefix}_echo-{number}_part-{part}_MEGRE"
            save(np.ascontiguousarray(array[..., number - 1]), folder / f"{stem}.nii.gz", like)
            sidecar = {**gradient_echo, "EchoNumber": number, "EchoTime": time}
            if part == "phase":
                sidecar["Units"] = "rad"
            write_json(folder / f"{stem}.json", sidecar)
    save(acquisition.t1w, folder / f"{prefix}_T1w.nii.gz", like)
    weighted = {
        **common,
        "PulseSequenceType": "Spoiled gradient echo, on the grid of the echoes",
        "RepetitionTime": T1W_REPETITION_TIME,
        "FlipAngle": T1W_FLIP_ANGLE,
    }
    write_json(folder / f"{prefix}_T1w.json", weighted)


def write_truth(
    root: Path,
    label: str,
    acquisition: Acquisition,
    regions: Sequence[Region],
    session: str | None = None,
) -> None:
    """Write susceptibility (ppm), total and local field (Hz), brain mask and regions."""
    like = _reference_image(acquisition.affine)
    subject, prefix = _place(root, label, session)
    inside = subject.relative_to(root).as_posix()
    sources = [
        f"bids:raw:{inside}/anat/{prefix}_echo-{n}_part-phase_MEGRE.nii.gz"
        for n in range(1, len(acquisition.protocol.echo_times) + 1)
    ]
    shared = {
        "ImagingFrequency": round(acquisition.protocol.imaging_frequency, 6),
        "B0Direction": list(acquisition.b0_dir),
        "Sources": sources,
    }

    def write(array, name, sidecar):
        save(array, subject / f"{name}.nii.gz", like)
        write_json(subject / f"{name}.json", sidecar)

    write(
        acquisition.chi,
        f"anat/{prefix}_desc-truth_Chimap",
        {
            "Description": "Susceptibility that the phase was simulated from, relative to water.",
            "Units": "ppm",
            "SkullStripped": False,
            **shared,
        },
    )
    for name, ppm, description in (
        ("total", acquisition.total_field_ppm, "Field of the whole head in air, shimmed."),
        ("local", acquisition.local_field_ppm, "Field of the susceptibility in the brain mask."),
    ):
        hertz = ppm * np.float32(acquisition.protocol.imaging_frequency)
        write(
            hertz,
            f"fmap/{prefix}_desc-{name}_fieldmap",
            {"Description": description, "Units": "Hz", "SkullStripped": False, **shared},
        )
    write(
        acquisition.mask,
        f"anat/{prefix}_desc-brain_mask",
        {"Type": "Brain", "Description": "Voxels at least half brain.", "Sources": sources},
    )
    save(acquisition.labels.astype(np.int16), subject / f"anat/{prefix}_dseg.nii.gz", like)
    write_text(subject / f"anat/{prefix}_dseg.tsv", _tsv(region_names(regions)))
    write_json(subject / f"anat/{prefix}_dseg.json", {**_DSEG_COLUMNS, "Sources": sources})


def region_names(regions: Sequence[Region]) -> pd.DataFrame:
    """Label table of the brain regions, in the columns of ``_dseg.tsv``.

    Names that left and right share get ``_L`` and ``_R``.
    """
    brain = [r for r in regions if r.brain]
    names = [r.name for r in brain]
    rows = [
        {
            "index": r.index,
            "name": f"{r.name}_{r.hemisphere}" if names.count(r.name) > 1 else r.name,
            "abbreviation": r.abbreviation,
            "hemisphere": r.hemisphere,
            "description": r.description,
            "susceptibility_ppm": r.susceptibility_ppm,
        }
        for r in brain
    ]
    return pd.DataFrame(rows, columns=list(_DSEG_COLUMNS))


def _prepare(out: Path, overwrite: bool) -> None:
    """Make the folder; empty it of an earlier dataset of this program where that was asked for."""
    out.mkdir(parents=True, exist_ok=True)
    if not any(out.iterdir()):
        return
    if not overwrite:
        raise DataError(
            f"{out} is not empty: choose another folder or add --overwrite.",
            ExitCode.CANNOT_CREATE,
        )
    description = out / "dataset_description.json"
    if not description.is_file() or GENERATOR not in description.read_text(encoding="utf-8"):
        raise DataError(
            f"{out} was not written by {GENERATOR}: it is left as it is.", ExitCode.CANNOT_CREATE
        )
    # Only what this program writes goes; other derivatives stay.
    for folder in [*out.glob("sub-*"), out / TRUTH]:
        if folder.is_dir():
            shutil.rmtree(folder)


def _write_root(out, people, head, groups, effect_ppb, variation, seed, parameters) -> None:
    """Dataset level files of the raw dataset and of the truth."""
    generated = [{"Name": GENERATOR, "Version": __version__}]
    description = {"BIDSVersion": "1.10.0", "License": "CC0", "GeneratedBy": generated}
    write_json(
        out / "dataset_description.json",
        {"Name": "Simulated multi-echo gradient echo", "DatasetType": "raw", **description},
    )
    write_json(
        out / TRUTH / "dataset_description.json",
        {
            "Name": "Truth of the simulated multi-echo gradient echo",
            "DatasetType": "derivative",
            "DatasetLinks": {"raw": "../../"},
            **description,
        },
    )
    table = pd.DataFrame(
        [{"participant_id": f"sub-{p.label}", "group": p.group, "age": p.age, "sex": p.sex}
         for p in people]
    )  # fmt: skip
    write_text(out / "participants.tsv", _tsv(table))
    write_text(out / TRUTH / ".bidsignore", "*_fieldmap.*\n")
    levels = {group: f"simulated {group}" for group in groups}
    columns = {**_COLUMNS, "group": {**_COLUMNS["group"], "Levels": levels}}
    write_json(out / "participants.json", columns)
    settings = {
        "model": "label image" if isinstance(head, LabelImage) else "analytic head",
        "groups": " ".join(groups),
        **{f"effect in {groups[0]}, {k}": f"{v:g} ppb" for k, v in (effect_ppb or {}).items()},
        "variation between subjects": variation,
        "seed": seed,
        **parameters,
    }
    lines = "\n".join(
        f"- {key}: {' '.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for key, value in settings.items()
        if value is not None
    )
    write_text(out / "README", _README.format(generator=GENERATOR, settings=lines))
    write_text(
        out / TRUTH / "README",
        "What the raw data were simulated from: susceptibility (ppm, relative to water), total\n"
        "and local field (Hz), brain mask and regions. The fields are not validated: BIDS wants a\n"
        "magnitude image beside a field map, and these come from none.\n",
    )


_README = """\
Multi-echo gradient-echo magnitude and phase of a simulated head, with a T1-weighted image of the
same head on the same grid. Nobody was scanned. Written by {generator}.

The phase grows with the echo time where the field is above that of water. What was simulated is
in derivatives/truth: susceptibility, total and local field, brain mask and regions.

Settings (the rest are the program's defaults):
{settings}
"""


def _tsv(table: pd.DataFrame) -> str:
    return table.to_csv(sep="\t", index=False, na_rep="n/a", lineterminator="\n")


def _reference_image(affine: np.ndarray) -> nib.Nifti1Image:
    """Header that says scanner coordinates, as a scanner's own images do."""
    image = nib.Nifti1Image(np.zeros((1, 1, 1), dtype=np.uint8), affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    return image
