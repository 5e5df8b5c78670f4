"""Visits of simulated participants: the same head, other noise, and a change in one group."""

from __future__ import annotations

import numpy as np
import pytest
from app_runner import Runner, errors_of

from qsmref import images
from qsmref.inputs import Query, discover
from qsmref.phantom.cli import main
from qsmref.phantom.cohort import at_visit

SMALL = ["--matrix", "24", "28", "22", "--voxel-size", "8", "8", "8", "--texture", "0"]


def test_what_is_added_at_a_visit():
    assert at_visit(None, None, 3) == {}
    assert at_visit({"SN": 25.0}, {"SN": 2.0}, 0) == {"SN": 25.0}
    assert at_visit({"SN": 25.0}, {"CN": 2.0}, 2) == {"SN": 25.0, "CN": 4.0}


def test_visits_of_a_cohort(tmp_path, capfd):
    bids = tmp_path / "bids"
    given = ["--participants", "2", "--groups", "patient", "control", "--sessions", "2"]
    given += ["--change", "CN=40", "--snr", "50"]
    assert main(["dataset", str(bids), *SMALL, *given]) == 0

    def load(label, visit, name, root=bids):
        path = root / f"sub-{label}/ses-{visit}/anat/sub-{label}_ses-{visit}_{name}.nii.gz"
        return images.load(path)[0]

    truth = bids / "derivatives" / "truth"
    for label, change in (("01", 0.04), ("02", 0.0)):
        labels = [load(label, visit, "dseg", truth) for visit in (1, 2)]
        assert np.array_equal(*labels)
        one, two = (load(label, visit, "desc-truth_Chimap", truth) for visit in (1, 2))
        moved = two - one
        assert moved.max() == pytest.approx(change, abs=1e-6)
        assert moved.min() == pytest.approx(0, abs=1e-6)
        first, second = (load(label, v, "echo-1_part-mag_MEGRE") for v in (1, 2))
        assert not np.array_equal(first, second)
    runs, problems = discover(bids, Query(derivatives={"truth": str(truth)}))
    assert not problems
    assert [run.prefix for run in runs] == [
        f"sub-{label}_ses-{visit}" for label in ("01", "02") for visit in (1, 2)
    ]
    assert all(run.mask is not None and run.regions for run in runs)
    assert "change per session in patient, CN: 40 ppb" in (bids / "README").read_text()
    assert errors_of(bids) == []
    done = Runner(tmp_path, capfd)(bids, "-d", f"truth={truth}")
    assert done.code == 0
    assert len(list(done.output_dir.glob("sub-*/ses-*/anat/*differential*.tsv"))) == 4


def test_a_change_needs_visits(tmp_path, capsys):
    assert main(["dataset", str(tmp_path / "x"), *SMALL, "--change", "SN=40"]) == 2
    assert "give --sessions too" in capsys.readouterr().err


def test_one_visit_is_written_as_before(tmp_path):
    assert main(["dataset", str(tmp_path / "x"), *SMALL]) == 0
    assert (tmp_path / "x/sub-01/anat/sub-01_echo-1_part-mag_MEGRE.nii.gz").is_file()
    assert "sessions" not in (tmp_path / "x/README").read_text()
