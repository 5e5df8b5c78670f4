"""Parameters of the methods as a user may set them: names, defaults, and what fits."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from typing import Any

#: Modules whose ``method_parameters`` tells what the methods of a step take.
_STEPS = {"background": "background", "inversion": "inversion"}
#: Of BET: its fractional intensity (``-f``); larger values give smaller brains.
_BET = {"fraction": 0.5}
#: Iterations of every loop in a run that only tests the plumbing.
_FEW = 3


def method_parameters(step: str, method: str) -> dict[str, Any]:
    """Names and default values of the parameters of a method.

    Parameters
    ----------
    step : {"background", "inversion", "mask"}
        What it does; those of ``mask`` are the criteria of the cut by phase quality.
    method : str
        One of :mod:`qsmref.reconstruction.methods`; ``bet`` of the mask has a parameter of its own,
        ``quality`` none but the criteria.

    Examples
    --------
    >>> method_parameters("background", "none")
    {}
    """
    if step == "mask":
        return {**(_BET if method == "bet" else {}), **_quality_criteria()}
    module = importlib.import_module(f".{_STEPS[step]}", __package__)
    return module.method_parameters(method)


def _quality_criteria() -> dict[str, float]:
    from .mask import phase_quality_mask

    signature = inspect.signature(phase_quality_mask)
    return {n: p.default for n, p in signature.parameters.items() if isinstance(p.default, float)}


def split_mask_parameters(
    method: str, given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the method that makes the mask takes, complete, and the criteria of phase quality.

    Raises
    ------
    ValueError
        A fractional intensity that is not between 0 and 1.

    Examples
    --------
    >>> split_mask_parameters("bet", {"max_noise": 4.0})
    ({'fraction': 0.5}, {'max_noise': 4.0})
    >>> split_mask_parameters("surface", {"max_noise": 4.0})
    ({}, {'max_noise': 4.0})
    """
    names = _BET if method == "bet" else {}
    own = {**names, **{name: given[name] for name in given if name in names}}
    if own and not 0 < own["fraction"] < 1:
        raise ValueError(f"mask bet: fraction must lie between 0 and 1, got {own['fraction']!r}")
    return own, {name: value for name, value in given.items() if name not in names}


def check_parameters(step: str, method: str, given: Mapping[str, Any]) -> None:
    """Raise a ValueError, with the list of what is valid, for a parameter that does not fit."""
    valid = method_parameters(step, method)
    listed = ", ".join(f"{name}={default}" for name, default in valid.items()) or "none"
    for name, value in given.items():
        if name not in valid:
            raise ValueError(
                f"{step} {method} has no parameter {name!r}; it takes (with defaults): {listed}"
            )
        default = valid[name]
        if default is None and _takes_list(step, method, name):
            default = () if value is not None else None
        if not _fits(value, default):
            raise ValueError(
                f"{step} {method}: {name} is {value!r}, where {_wanted(default)} is expected "
                "(a list of one number ends with a comma)"
            )
        least = _least(name)
        if least is not None and value is not None and not value >= least:
            words = "at least 1" if least == 1 else "positive"
            raise ValueError(f"{step} {method}: {name} must be {words}, got {value!r}")


def _least(name: str) -> float | None:
    """What a number of this name must reach, None where the method itself says so."""
    if name.endswith("iterations"):
        return 1
    return sys.float_info.min if name == "lambda_" else None


def _takes_list(step: str, method: str, name: str) -> bool:
    module = importlib.import_module(f".{_STEPS[step]}", __package__)
    parameters = inspect.signature(module.METHODS.function(method)).parameters
    return "Sequence" in str(parameters[name].annotation)


def _fits(value: Any, default: Any) -> bool:
    if default is None:
        # Every other parameter that is found from the data by default is a number.
        return value is None or _fits(value, 0.0)
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, int | float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, tuple | list):
        return isinstance(value, tuple | list)
    return isinstance(value, type(default))


def _wanted(default: Any) -> str:
    if default is None:
        return "a number"
    return f"something like {default!r}" if default != () else "a list of numbers"


def with_few_iterations(step: str, method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with every number of iterations cut down, except those that are `given`."""
    few = {
        name: min(default, _FEW)
        for name, default in method_parameters(step, method).items()
        if "iter" in name and isinstance(default, int) and not isinstance(default, bool)
    }
    return {**few, **given}
