"""The command line run in this process, for the tests of it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bids_app.run import main
from bids_app.validation import validate, validator

FAST = ["--background", "v-sharp", "--inversion", "tkd", "--nprocs", "1"]


class Done:
    """What a command left behind."""

    def __init__(self, code: int, out: str, err: str, output_dir: Path):
        self.code, self.out, self.err, self.output_dir = code, out, err, output_dir
        self.last = out.strip().splitlines()[-1] if out.strip() else ""

    @property
    def status(self) -> pd.DataFrame:
        """Status table by participant."""
        path = self.output_dir / "logs" / "participant-status.tsv"
        return pd.read_csv(path, sep="\t", keep_default_na=False).set_index("participant_id")


class Runner:
    """Runs ``qsmref`` with results and work folder in `folder`."""

    def __init__(self, folder: Path, capture):
        self.folder, self.capture = folder, capture

    def __call__(self, bids: Path, *flags, fast: bool = True, validation: bool = False) -> Done:
        out, work = self.folder / "out", self.folder / "work"
        argv = [str(bids), str(out), "participant", "-w", str(work)]
        argv += FAST if fast else []
        argv += [] if validation else ["--skip-bids-validation"]
        self.capture.readouterr()
        code = main([*argv, *map(str, flags)])
        printed, errors = self.capture.readouterr()
        assert "Traceback" not in printed + errors
        done = Done(code, printed, errors, out)
        assert done.last.startswith("qsmref: ")
        assert done.last.endswith(f"Exit status {code}")
        return done


def regions(root: Path) -> list[str]:
    """Flags for the derivative with mask and labels."""
    return ["-d", f"mine={root / 'regions'}"]


def errors_of(folder: Path) -> list[str]:
    """Errors that bids-validator finds."""
    assert validator() is not None, "bids-validator-deno is among the packages for tests"
    result = validate(folder)
    assert not result.skipped
    return [*result.errors, *result.participant_errors]
