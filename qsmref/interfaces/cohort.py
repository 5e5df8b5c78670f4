"""Nodes of the cohort: the average of all maps in the template."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nipype.interfaces.base import File, InputMultiObject, TraitedSpec, traits

from .. import voxels
from ..analysis.average import RunningMoments, relative_to_brain
from ..problems import DataError
from .base import InputSpec, Interface, about


class _AverageInput(InputSpec):
    chimaps = InputMultiObject(File(exists=True), mandatory=True, desc="maps in the template, ppm")
    masks = InputMultiObject(File(exists=True), mandatory=True, desc="where each is valid")
    participants = traits.List(traits.Str, mandatory=True, desc="whose map each of them is")


class _AverageOutput(TraitedSpec):
    mean = File(desc="ppm")
    sd = File(desc="ppm")
    info = File(desc="how many maps")


class AverageMaps(Interface):
    """Mean and SD over participants; maps of one participant are averaged first."""

    input_spec = _AverageInput
    output_spec = _AverageOutput

    def _compute(self, folder: Path) -> None:
        chimaps, people = list(self.inputs.chimaps), list(self.inputs.participants)
        like = nib.load(chimaps[0])
        grid = voxels.Grid.of(chimaps[0])
        everybody = RunningMoments(grid.shape)
        rows = list(zip(people, chimaps, self.inputs.masks, strict=True))
        for who in dict.fromkeys(people):
            own = RunningMoments(grid.shape)
            for _, chimap, mask in (row for row in rows if row[0] == who):
                for path in (chimap, mask):
                    if not voxels.Grid.of(path).same_as(grid):
                        raise DataError(
                            f"{Path(path).name} is on another grid than {Path(chimaps[0]).name}, "
                            "though both are said to be in one template; run the level participant "
                            "again for those made with another version of it."
                        )
                valid = voxels.read_mask(mask)
                with about(chimap):
                    own.add(relative_to_brain(voxels.read(chimap), valid), valid)
            everybody.add(own.mean, own.count > 0)
        # A voxel that few participants have would show what sets these few apart.
        n = len(dict.fromkeys(people))
        kept = everybody.count * 2 >= n
        for name in ("mean", "sd"):
            self._save(name, np.where(kept, getattr(everybody, name), 0), folder, like)
        info = {
            "NumberOfParticipants": n,
            "NumberOfMaps": len(chimaps),
            "VoxelsOfAll": np.count_nonzero(everybody.count == n),
            "VoxelsOfHalf": np.count_nonzero(kept),
        }
        self._save_json("info", info, folder)
