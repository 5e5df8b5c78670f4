"""Simulated tables of region means: groups, ages, an offset for each map, an effect in a region."""

from __future__ import annotations

import numpy as np
import pandas as pd

REGIONS = ("SN", "RN", "CN", "GP", "PU")
SD = np.array([12.0, 10.0, 6.0, 8.0, 7.0])


def cohort(
    n: int = 32,
    *,
    effect: float = 0.0,
    groups: tuple[str, ...] = ("patient", "control"),
    offset: float = 40.0,
    sessions: int = 1,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Wide table (ppb) and participants; the effect is in SN of the first group."""
    rng = np.random.default_rng(seed)
    ids = [f"sub-{k + 1:02d}" for k in range(n)]
    group = np.array(groups)[np.arange(n) % len(groups)]
    people = pd.DataFrame(
        {
            "participant_id": ids,
            "group": group,
            "age": rng.normal(62, 8, n).round(1),
            "sex": rng.choice(["F", "M"], n),
        }
    )
    true = rng.normal(size=(n, len(REGIONS))) * SD + 0.4 * (people["age"].to_numpy()[:, None] - 62)
    true[group == groups[0], 0] += effect
    parts = []
    for k in range(sessions):
        values = true + rng.normal(0, offset, (n, 1))
        if sessions > 1:
            values = values + rng.normal(0, 3, values.shape)
        part = pd.DataFrame(values, columns=list(REGIONS))
        part.insert(0, "participant_id", ids)
        if sessions > 1:
            part["visit"] = str(k + 1)
        parts.append(part)
    return pd.concat(parts, ignore_index=True), people
