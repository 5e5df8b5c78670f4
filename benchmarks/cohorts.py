"""The group level: how large a cohort may be, and how often it is wrong."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from scipy.stats import binom

from .cohort_tables import REGIONS, null_cohort, write_cohort
from .report import table

TITLE_SIZE = "Size of a cohort"
TITLE_NULL = "False positives"

_SIZE = ("test", "wall s", "CPU s", "peak GB")


def run_size(options) -> str:
    """Time and memory of ``qsmref ... group`` for a large cohort."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        bids, results = write_cohort(Path(folder), options.participants)
        seconds = time.monotonic() - started
        options.say(f"{options.participants} participants' tables written in {seconds:.0f} s")
        given = {"student": [], "ancova": ["--covariates", "age", "sex"]}
        given["permutation"] = ["--test", "permutation"]
        for name, extra in given.items():
            rows.append((name, *_group(bids, results, extra)))
            options.say(table(_SIZE, rows[-1:]))
    text = (
        f"Level `group` for {options.participants} participants with 30 regions and the whole "
        "brain under 11 masks (5,445 rows): the command from start to end in a process of its own."
    )
    return "\n\n".join([text, table(_SIZE, rows)])


def _group(bids: Path, results: Path, extra: list[str]) -> tuple[float, float, float]:
    command = [sys.executable, "-m", "bids_app.run", str(bids), str(results), "group"]
    command += ["--group-column", "group", "--groups", "patient", "control", *extra]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    # A process between, so that the peak is that of this command and no earlier one.
    script = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, "
        "stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command], check=True, capture_output=True, text=True
    )
    wall = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, int(done.stdout) / 1e6


# --- false positives ------------------------------------------------------------------------------

Hits = Iterator[tuple[str, bool]]


def run_null(options) -> str:
    """How often each test finds something in cohorts without a difference.

    Every seed gives as many cohorts of its own; a rate is that over the cohorts of all seeds.
    """
    rows, count = [], options.tables * len(options.seeds)
    for name, check in CHECKS.items():
        found: Counter[str] = Counter()
        for i, (seed, k) in enumerate(product(options.seeds, range(options.tables))):
            # A seed of its own for each check: their verdicts are not those of one set of cohorts.
            # The number of a cohort among all is the seed of its permutations.
            rng = np.random.default_rng([seed, sum(name.encode()), k])
            for what, hit in check(rng, i):
                found[what] += bool(hit)
        for what, hits in found.items():
            rows.append((name, what, 100 * hits / count, verdict(what, hits, count)))
        options.say(table(_NULL, [r for r in rows if r[0] == name]))
    low, high = (100 * v / count for v in binom.ppf([0.025, 0.975], count, 0.05))
    seeds = ", ".join(map(str, options.seeds))
    text = (
        f"{count} cohorts without a difference between groups or visits, for each test (seed"
        f"{'s' * (len(options.seeds) > 1)} {seeds}): "
        "16 + 16 participants (11 + 11 + 11 for three groups), five regions, an offset of 30 ppb "
        "(SD) in every map, an effect of age. 95 % of the runs of a test that holds its level lie "
        f"between {low:.1f} and {high:.1f} %."
    )
    return "\n\n".join([text, table(_NULL, rows), outside([r[1:] for r in rows], count)])


_NULL = ("test", "what", "p or q of 0.05 or less, %", "verdict")


def outside(rates: Sequence[tuple[str, float, str]], count: int) -> str:
    """How many rates lie outside the interval of their level, and how many chance alone puts there.

    Parameters
    ----------
    rates : sequence of (what, percent, verdict)
        Those that only claim a bound are not counted: they may lie below.
    count : int
        Cohorts behind each rate.
    """
    exact = [r for r in rates if not r[0].startswith(_BOUNDED)]
    low, high = binom.ppf([0.025, 0.975], count, 0.05)
    # Less than one in twenty: a number of hits is whole, and the ends belong to the interval.
    chance = binom.cdf(low - 1, count, 0.05) + binom.sf(high, count, 0.05)
    many, few = (sum(r[2] == word for r in exact) for word in ("too many", "too few"))
    text = (
        f"{many + few} of {len(exact)} rates of tests at the level 0.05 lie outside that interval "
        f"({many} above, {few} below); {chance * len(exact):.1f} are expected by chance of tests "
        "that all hold it."
    )
    bounded = [r for r in rates if r[0].startswith(_BOUNDED)]
    above = sum(r[2] == "too many" for r in bounded)
    return text + f" Of {len(bounded)} rates that may lie below, {above} lie above."


#: What may be wrong less often than one in twenty.
_BOUNDED = ("any q", "survives", "equal")


def verdict(what: str, hits: int, count: int) -> str:
    """Whether a number of hits is that of a test with the level 0.05."""
    low, high = binom.ppf([0.025, 0.975], count, 0.05)
    if hits > high:
        return "too many"
    return "right" if hits >= low else "fewer" if what.startswith(_BOUNDED) else "too few"


def _compared(sizes=(16, 16), **options) -> Callable[[np.random.Generator, int], Hits]:
    def check(rng: np.random.Generator, k: int) -> Hits:
        from qsmref.analysis import compare_groups, measurements

        wide, people = null_cohort(rng, sizes)
        measured = measurements(wide, regions=REGIONS)
        found = compare_groups(measured, people, "group", permutations=999, seed=k, **options)
        for row, what in ((0, "SN alone"), (5, "SN - RN"), (14, "GP - PU")):
            yield what, found["p"].iloc[row] <= 0.05
        pairs = found[found["family"] == "pairs"]
        yield "any q (BH) of ten pairs", (pairs["q_bh"] <= 0.05).any()
        yield "any q (BY) of ten pairs", (pairs["q_by"] <= 0.05).any()
        if "p_fwe" in found:
            alone = found[found["family"] == "alone"]
            yield "max-T over ten pairs", (pairs["p_fwe"] <= 0.05).any()
            yield "max-T over five regions", (alone["p_fwe"] <= 0.05).any()

    return check


def _omnibus(sizes=(16, 16), **options) -> Callable[[np.random.Generator, int], Hits]:
    def check(rng: np.random.Generator, k: int) -> Hits:
        from qsmref.analysis import measurements, omnibus_test

        wide, people = null_cohort(rng, sizes)
        measured = measurements(wide, regions=REGIONS)
        found = omnibus_test(measured, people, "group", permutations=999, seed=k, **options)
        yield "F", found.table["p"].iloc[0] <= 0.05
        yield "permutation", found.table["p_permutation"].iloc[0] <= 0.05
        yield "SN drives it", found.drivers["p"].iloc[0] <= 0.05
        yield "PU drives it", found.drivers["p"].iloc[4] <= 0.05

    return check


def _visits(visits=2, gaps=0, groups=True, **options):
    def check(rng: np.random.Generator, k: int) -> Hits:
        from qsmref.analysis import change_over_time, measurements

        wide, people = null_cohort(rng, visits=visits)
        if gaps:
            lost = rng.choice(people["participant_id"], gaps, replace=False)
            wide = wide[~((wide["visit"] == str(visits)) & wide["participant_id"].isin(lost))]
        measured = measurements(wide, regions=REGIONS[:2], session_column="visit")
        given = {"participants": people, "group_column": "group"} if groups else {}
        found = change_over_time(measured, **given, **options)
        for contrast, rows in found.groupby("contrast"):
            yield f"{contrast}, SN alone", rows["p"].iloc[0] <= 0.05
            yield f"{contrast}, SN - RN", rows["p"].iloc[2] <= 0.05

    return check


def _paired(rng: np.random.Generator, k: int) -> Hits:
    from qsmref.analysis import measurements
    from qsmref.analysis.paired import paired_test

    wide, _ = null_cohort(rng, visits=2)
    found = paired_test(measurements(wide, regions=REGIONS, session_column="visit"))
    for row, what in ((0, "SN alone"), (5, "SN - RN"), (14, "GP - PU")):
        yield what, found["p"].iloc[row] <= 0.05


def _equivalence(rng: np.random.Generator, k: int) -> Hits:
    """The null of an equivalence test is a difference as large as the margin."""
    from qsmref.analysis import measurements, reference_audit

    margin = 20.0
    wide, people = null_cohort(rng, (32, 32))
    wide.loc[(people["group"] == "a").to_numpy(), "SN"] += margin
    measured = measurements(wide, regions=REGIONS)
    found = reference_audit(measured, people, "group", margin=margin).equivalence
    row = found[(found["candidate"] == "SN") & (found["relative_to"] == "CN")]
    yield "equal although they differ by the margin", row["equivalent"].iloc[0] == "yes"


def _sweep(rng: np.random.Generator, k: int) -> Hits:
    """What survives eleven masks: every mask moves all maps, and each region a little."""
    from qsmref.analysis import compare_groups
    from qsmref.analysis.stability import survival_table
    from qsmref.analysis.tables import Measurements

    from .cohort_tables import SWEEP

    wide, people = null_cohort(rng)
    whole = wide[list(REGIONS)].to_numpy()[:, None]
    shape = (len(whole), len(SWEEP), len(REGIONS))
    moved = whole + rng.normal(0, 10, (*shape[:2], 1)) + rng.normal(0, 1, shape)
    ids = people["participant_id"].to_numpy(dtype=object)
    measured = Measurements(ids, moved, REGIONS, coverages=SWEEP)
    found = survival_table(compare_groups(measured, people, "group"))
    pairs = found[found["family"] == "pairs"]
    yield "any q (BH) of ten pairs, whole mask", (pairs["whole"] == "yes").any()
    yield "survives: any of ten pairs, all masks", (pairs["survives_all"] == "yes").any()


_THREE = (11, 11, 11)
#: Name of a check -> function of a generator and the number of the cohort.
CHECKS: dict[str, Callable[[np.random.Generator, int], Hits]] = {
    "Student": _compared(test="student"),
    "Welch": _compared(test="welch"),
    "Welch, 10 + 22": _compared((10, 22), test="welch"),
    "ANOVA, three groups": _compared(_THREE, test="anova"),
    "ANCOVA": _compared(covariates=["age", "sex"]),
    "ANCOVA, three groups": _compared(_THREE, covariates=["age", "sex"]),
    "permutation": _compared(test="permutation"),
    "permutation, covariates": _compared(test="permutation", covariates=["age", "sex"]),
    "permutation, three groups": _compared(_THREE, test="permutation"),
    "omnibus": _omnibus(),
    "omnibus, covariates": _omnibus(covariates=["age", "sex"]),
    "omnibus, three groups": _omnibus(_THREE),
    "paired": _paired,
    "mixed, two visits": _visits(groups=False),
    "mixed, two visits, groups": _visits(),
    "mixed, 8 of 32 second visits missing": _visits(gaps=8),
    "mixed, three visits": _visits(3),
    "equivalence": _equivalence,
    "sweep of masks": _sweep,
}
