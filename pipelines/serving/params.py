"""The parameters of `predict`: their types, defaults and ranges, and how much work one call may ask for."""

from __future__ import annotations

import difflib
import json
import math
import os
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

PARAMS: dict[str, tuple[str, Any]] = {
    "task": ("string", "sample"),
    "n": ("long", 16),
    "seed": ("long", 0),
    "label": ("long", -1),
    "steps": ("long", 0),
    "draws": ("long", 1),
    "sigma": ("double", 25.5),
    "strength": ("double", 0.5),
    "rate": ("double", 0.01),
    "on_unknown": ("string", "fail"),
    "given": ("string", "{}"),
}
"""Type and default of each parameter: the registered signature is made of it. `seed` 0 gives the same
draws at every call, -1 new ones; `label` may also be a class's name; `given` is JSON."""

KINDS = {bool: "boolean", int: "long", float: "double", str: "string"}
"""Types as MLflow names them."""

JOBS = {
    "generation": "sample",
    "density": "log_density",
    "anomaly": "anomaly",
    "imputation": "impute",
    "representation": "encode",
}
"""The task that a version does unasked, by the use case it was registered for."""

LIMITS = {
    "FIVEFOLD_MAX_WORK": 2**28,
    "FIVEFOLD_MAX_SECONDS": 600,
    "FIVEFOLD_MAX_ROWS": 10**6,
    "FIVEFOLD_MAX_REQUEST_BYTES": 2**28,
}
"""What one call may ask for unless the environment says otherwise: values computed (examples, or rows given,
times draws, times steps, times values of an example), seconds, looked at between parts of the work, rows given, and
bytes of a request over REST."""


def limit(name: str) -> int:
    """A limit of `LIMITS`, from the environment if it is set there.

    Raises:
        ValueError: If the variable is no whole number of at least 1.
    """
    text = os.environ.get(name, "").strip() or str(LIMITS[name])
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"the server's {name} must be a whole number of at least 1, got {text!r}. Set it or unset it.")
    return int(text)


def check_work(task: str, *, count: int, draws: int, steps: int, values: int) -> None:
    """Refuse, before it begins, work beyond the limit.

    Raises:
        ValueError: Names the numbers, their product, and the limit.
    """
    most = limit("FIVEFOLD_MAX_WORK")
    work = count * draws * steps * values
    if work > most:
        raise ValueError(
            f"{work} values are too many for one call: task {task!r} with {count} examples x {draws} draws x {steps} "
            f"steps x {values} values each; at most {most} (FIVEFOLD_MAX_WORK). Ask for less at a time."
        )


def check_rows(rows: int) -> None:
    """Refuse more rows than one call may give.

    Raises:
        ValueError: Names their number and the limit.
    """
    most = limit("FIVEFOLD_MAX_ROWS")
    if rows > most:
        raise ValueError(
            f"{rows} rows are too many for one call: at most {most} (FIVEFOLD_MAX_ROWS). Send them in parts."
        )


def parameters(sampling: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """Type and default of each parameter of a model that draws by these settings, which can be set at every call."""
    own = {name: (KINDS[type(value)], value) for name, value in sampling.items()}
    return PARAMS | {name: each for name, each in own.items() if name not in PARAMS}


def checked(
    params: Mapping[str, Any], classes: Sequence[str], n_classes: int, sampling: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """All parameters, of the right types and in range; `label` as its number; `task` as given, `None` if it was not;
    as `sampling` those of the model's own settings of sampling that are set otherwise, which the model checks.

    Arguments:
        params: As the caller gave them.
        classes: Names of the classes; may be empty though there are some.
        n_classes: How many there are.
        sampling: The model's own settings of sampling.
    Raises:
        ValueError: Names the parameter, what is expected, and what was given.
    """
    known = parameters(sampling or {})
    unknown = sorted(map(str, set(params) - set(known)))
    if unknown:
        raise ValueError(f"unknown params {', '.join(unknown)}; known: {', '.join(known)}.")
    options = {name: params.get(name, default) for name, (_, default) in PARAMS.items()}
    options["task"] = params.get("task")
    if options["task"] is not None and not isinstance(options["task"], str):
        raise ValueError(f"task must be a text, got {options['task']!r}. Task 'describe' lists them.")
    for name, least in (("n", 0), ("seed", -1), ("steps", 0), ("draws", 1)):
        options[name] = _whole(name, options[name], least)
    options["sigma"] = _number("sigma", options["sigma"], "a positive number (noise in data units)")
    if not options["sigma"] > 0:
        raise ValueError(f"sigma must be a positive number (noise in data units), got {options['sigma']!r}.")
    options["strength"] = _number("strength", options["strength"], "a number between 0 and 1")
    if not 0 <= options["strength"] <= 1:
        raise ValueError(f"strength must lie between 0 and 1, got {options['strength']!r}.")
    options["rate"] = _number("rate", options["rate"], "a number above 0 and below 1")
    if not 0 < options["rate"] < 1:
        raise ValueError(
            f"rate must lie above 0 and below 1 (share of ordinary rows flagged), got {options['rate']!r}."
        )
    if options["on_unknown"] not in ("fail", "missing"):
        raise ValueError(f"on_unknown must be 'fail' or 'missing', got {options['on_unknown']!r}.")
    options["label"] = label_number(options["label"], classes, n_classes)
    options["given"] = _given(options["given"])
    options["sampling"] = {name: params[name] for name in params if name not in PARAMS}
    if options["steps"] and "steps" in (sampling or {}):
        options["sampling"]["steps"] = options["steps"]
    return options


def label_number(label: Any, classes: Sequence[str], n_classes: int) -> int:
    """The number of a class given as its number, its name, or its value in the source; -1 for any.

    Raises:
        ValueError: Lists the classes.
    """
    if isinstance(label, str):
        text = label.strip()
        if text in classes:
            return list(classes).index(text)
        if not text.removeprefix("-").isdecimal():
            names = {str(name).casefold(): str(name) for name in classes}
            near = difflib.get_close_matches(text.casefold(), names, 1)
            hint = f"; did you mean {names[near[0]]!r}?" if near else "."
            raise ValueError(_label_rule(classes, n_classes) + f", got {label!r}{hint}")
        number = int(text)
    elif isinstance(label, bool) or not isinstance(label, Integral):
        raise ValueError(f"label must be a class's name or a whole number of at least -1, got {label!r}.")
    else:
        number = int(label)
    if number < -1:
        raise ValueError(f"label must be a class's name or a whole number of at least -1, got {label!r}.")
    if number >= 0 and (not n_classes or number >= n_classes):
        raise ValueError(_label_rule(classes, n_classes) + f", got {label!r}.")
    return number


def _label_rule(classes: Sequence[str], n_classes: int) -> str:
    if not n_classes:
        return "this model was trained without labels: label must be -1 (any)"
    shown = [str(name) for name in classes[:20]]
    known = f" ({', '.join(shown)}{', …' if len(classes) > 20 else ''})" if shown else ""
    return f"label must be -1 (any) or 0 to {n_classes - 1}{known}"


def _given(value: Any) -> dict[str, Any]:
    expected = 'given must be a JSON object of columns and their values, such as {"city": "Oslo"}'
    if isinstance(value, str):
        try:
            value = json.loads(value or "{}")
        except ValueError as error:
            raise ValueError(f"{expected}, got {value!r}: {error}.") from error
    if not isinstance(value, Mapping):
        raise ValueError(f"{expected}, got {value!r}.")
    return {str(name): cell for name, cell in value.items()}


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        extra = " (-1: new draws at every call)" if name == "seed" else ""
        raise ValueError(f"{name} must be a whole number of at least {least}{extra}, got {value!r}.")
    return int(value)


def _number(name: str, value: Any, expected: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name} must be {expected}, got {value!r}.")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{name} must be {expected}, got a number that is too large.") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} must be {expected}, got {value!r}.")
    return number
