"""Simulated tables of cohorts: region means of one or more visits, and whole folders of results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

REGIONS = ("SN", "RN", "CN", "GP", "PU")
#: SD between people, ppb.
SD = (12.0, 10.0, 6.0, 8.0, 7.0)
#: The sweep of the study.
SWEEP = tuple((8.0 * k, 0.0) for k in range(6)) + tuple((0.0, 2.0 * k) for k in range(1, 6))


def null_cohort(
    rng: np.random.Generator,
    sizes: tuple[int, ...] = (16, 16),
    *,
    visits: int = 1,
    offset: float = 30.0,
    aging: float = 0.5,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Groups that do not differ: a wide table (ppb) and participants.

    Every map has an offset of its own; age has an effect that all regions share.
    """
    n = sum(sizes)
    ids = [f"s{k:03d}" for k in range(n)]
    people = pd.DataFrame(
        {"participant_id": ids, "group": np.repeat(list("abc")[: len(sizes)], sizes)}
    )
    people["age"] = rng.normal(60, 8, n)
    people["sex"] = rng.choice(["F", "M"], n)
    true = 80 + rng.normal(size=(n, len(REGIONS))) * SD
    true += aging * (people["age"].to_numpy()[:, None] - 60)
    parts = []
    for visit in range(visits):
        values = true + rng.normal(0, offset, (n, 1))
        if visits > 1:
            values = values + rng.normal(0, 4, values.shape)
        part = pd.DataFrame(values, columns=list(REGIONS))
        part.insert(0, "participant_id", ids)
        if visits > 1:
            part["visit"] = str(visit + 1)
        parts.append(part)
    return pd.concat(parts, ignore_index=True), people


def write_cohort(
    folder: Path, participants: int, regions: int = 30, sweep=SWEEP, seed: int = 0
) -> tuple[Path, Path]:
    """Write the tables that the level participant leaves, as quickly as text can be made.

    Returns
    -------
    bids, results : Path
        Folder with ``participants.tsv``, and folder of results.
    """
    from qsmref.analysis.coverage import coverage_table
    from qsmref.analysis.reference import differential_table
    from qsmref.tables import write_tsv

    rng = np.random.default_rng(seed)
    bids, results = folder / "bids", folder / "results"
    bids.mkdir(parents=True)
    names = [*(f"R{k:02d}" for k in range(regions)), "brain"]
    place = rng.normal(0, 30, (len(names), 3))
    template = _region_table(names, place)
    rows = coverage_table(dict.fromkeys(sweep, template))
    ends = _ends(rows, names, sweep)
    pairs = differential_table(template)
    first, second = (np.array([names.index(n) for n in pairs[c]]) for c in ("region", "reference"))
    groups, ages = ["patient", "control"], []
    for k in range(participants):
        label = f"sub-{k + 1:05d}"
        anat = results / label / "anat"
        anat.mkdir(parents=True)
        stem = anat / f"{label}_atlas-big_desc"
        mean = 80 + rng.normal(0, 10, len(names)) + rng.normal(0, 30)
        mean[0] += 25 * (k % 2 == 0)
        level = {c: mean for c in ("mean", "median", "p05", "p95")}
        write_tsv(f"{stem}-roi_Chimap.tsv", template.assign(**level))
        difference = mean[first] - mean[second]
        write_tsv(f"{stem}-differential_Chimap.tsv", pairs.assign(difference=difference))
        moved = (
            mean + rng.normal(0, 7, (len(sweep), 1)) + rng.normal(0, 0.5, (len(sweep), len(names)))
        )
        moved[0] = mean
        alone = moved.ravel()
        both = (moved[:, first] - moved[:, second]).ravel()
        cells = np.char.mod("%.9g", np.concatenate([alone, both])).tolist()
        text = "\n".join(a + c + b for (a, b), c in zip(ends, cells, strict=True))
        Path(f"{stem}-coverage_Chimap.tsv").write_text("\t".join(rows.columns) + "\n" + text + "\n")
        Path(f"{stem}-coverage_Chimap.json").write_text('{"RegionsAloneFirst": true}\n')
        ages.append((label, groups[k % 2], round(rng.normal(62, 8)), "FM"[k % 3 % 2]))
    write_tsv(
        bids / "participants.tsv",
        pd.DataFrame(ages, columns=["participant_id", "group", "age", "sex"]),
    )
    return bids, results


def _region_table(names: list[str], place: np.ndarray) -> pd.DataFrame:
    index = pd.array([*range(1, len(names)), None], dtype="Int64")
    table = pd.DataFrame({"index": index, "name": names, "hemisphere": "n/a"})
    numbers = {"n_voxels": 100, "volume_mm3": 100.0, "coverage": 1.0, "mean": 0.0, "sd": 5.0}
    numbers |= {"se": 1.0, "se_noise": 0.5, "median": 0.0, "mad": 3.0, "p05": 0.0, "p95": 0.0}
    return table.assign(**numbers, **dict(zip("xyz", place.T, strict=True)))


def _ends(rows: pd.DataFrame, names: list[str], sweep) -> list[tuple[str, str]]:
    """What stands before and after the value in each row of a table of coverages."""
    made = []
    for row in rows.itertuples(index=False):
        reference = row.reference if isinstance(row.reference, str) else "n/a"
        start = f"{row.slab_cut_mm:g}\t{row.erosion_mm:g}\t{row.region}\t{reference}\t"
        made.append((start, "\t1\t" + ("n/a" if reference == "n/a" else "1")))
    return made
