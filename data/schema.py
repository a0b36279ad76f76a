"""What a person writes in YAML, as dataclasses: every fault at once, each with its key, what is expected and got."""

from __future__ import annotations

import difflib
import re
import sys
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError

MOST_INT = 2**53
"""Whole numbers beyond are no count of anything, and overflow in libraries."""


class Misfit(ValueError):
    """A value is not of a type; says what is expected."""


def parse_yaml(text: str, path: Path) -> dict[str, Any]:
    """A YAML 1.2 mapping (so that `1e-4` is a number); nothing at all is an empty one.

    Raises:
        ValueError: If it is not YAML, repeats a key, or is not a mapping; `path` is named.
    """
    try:
        loaded = YAML(typ="safe", pure=True).load(text)
    except DuplicateKeyError as error:
        key = re.search(r'duplicate key "(.*?)" with', str(error.problem), re.DOTALL)
        raise ValueError(f"{path} gives {key[1] if key else 'a key'} twice{_place(error)}. Keep one of them.") from None
    except YAMLError as error:
        what = getattr(error, "problem", None) or str(error)
        tabs = "; indent with blanks" if "'\\t'" in what else ""
        text = f"{' '.join(what.split())}{_place(error)}{tabs}"
        raise ValueError(f"{path} is not valid YAML: {text}. Fix the file.") from None
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply, or holds itself. Fix the file.") from None
    except (ValueError, TypeError, OverflowError, AttributeError, LookupError, NotImplementedError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {error}. Fix the file.") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        found = {list: "a list", str: "text"}.get(type(loaded), f"{loaded!r}")
        raise ValueError(f"{path} must be a mapping of keys to values (`key: value`), got {found}. Fix the file.")
    _check_bounds(loaded, path)
    return loaded


def _place(error: YAMLError) -> str:
    """Where in the file an error was found."""
    mark = getattr(error, "problem_mark", None)
    return f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""


def _hint(key: Any, value: Any, known: Iterable[str]) -> str:
    """What may be meant by an unknown key."""
    if value is None and str(key).isdecimal():
        return "; is it the rest of a number with a comma (80,000)? A comma begins the next key here: write 80000"
    return nearest(str(key), known)


LONGEST_NAME = 100
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}")
"""Names of datasets: nothing that a shell or a file system takes for something else."""
NAME_RULE = f"letters, digits, '.', '_' and '-', the first a letter or digit, at most {LONGEST_NAME}"


def is_name(name: Any) -> bool:
    """Whether a dataset can be called so."""
    return isinstance(name, str) and NAME.fullmatch(name) is not None


def check_name(name: Any) -> None:
    """Refuse what is no name of a dataset, such as a path.

    Raises:
        ValueError: Names what was given.
    """
    if not is_name(name):
        raise ValueError(
            f"a dataset's name consists of {NAME_RULE}, got {str(name)[:100]!r}. Rename it: a name is also a folder's."
        )


MOST_VALUES, DEEPEST = 100_000, 40
"""How much a file of settings may hold, what an alias stands for counted as often as it stands there."""


def _check_bounds(loaded: Any, path: Path) -> None:
    """Refuse files that are small and yet hold more than memory: aliases of aliases.

    Raises:
        ValueError: Names the file.
    """
    sizes: dict[int, int] = {}

    def size(value: Any, above: tuple[int, ...]) -> int:
        if not isinstance(value, (dict, list)):
            return 1
        if id(value) in above or len(above) == DEEPEST:
            raise ValueError(f"{path} is nested more than {DEEPEST} deep, or holds itself. Fix the file.")
        if id(value) not in sizes:
            parts = [*value, *value.values()] if isinstance(value, dict) else value
            sizes[id(value)] = 1 + sum(size(part, (*above, id(value))) for part in parts)
        if sizes[id(value)] > MOST_VALUES:
            raise ValueError(
                f"{path} holds more than {MOST_VALUES} values, counting what its aliases stand for. Write less."
            )
        return sizes[id(value)]

    size(loaded, ())


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint: the nearest known name, or all of them."""
    known = list(known)
    close = closest(name, known)
    return f"; did you mean {close}?" if close else f"; known: {', '.join(known)}"


def closest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like one, whatever the case of either, or ends in it; empty where none does."""
    folded = {each.casefold(): each for each in known}
    ends = [each for each in folded.values() if "." in each and each.rpartition(".")[2].casefold() == name.casefold()]
    if ends:
        return ends[0]
    close = difflib.get_close_matches(name.casefold(), folded, n=1)
    return folded[close[0]] if close else ""


def build(cls: type, content: Any, where: str, errors: list[str]) -> Any:
    """A dataclass from a mapping; a key without a value takes its default.

    Arguments:
        cls: The dataclass. Understood are fields of text, numbers, true or false, literals, tuples,
            mappings, other dataclasses and unions of these.
        content: The mapping; `None` for an empty one.
        where: Its key, dotted; empty for the whole file.
        errors: Where faults are noted.
    Returns:
        The dataclass, a scalar that does not fit left at its default so that the rest can be checked at
        once; None where it cannot be made. It is to be used only if `errors` stays empty.
    """
    content = {} if content is None else content
    if not isinstance(content, Mapping):
        errors.append(f"{where}: must be a mapping with {', '.join(f.name for f in fields(cls))}, got {content!r}")
        return None
    prefix, whole = f"{where}." if where else "", True
    known, kinds = {item.name: item for item in fields(cls)}, get_type_hints(cls)
    errors += [f"{prefix}{key}: unknown key{_hint(key, content[key], known)}" for key in content if key not in known]
    values = {}
    for name, item in known.items():
        before, needed = len(errors), item.default is MISSING and item.default_factory is MISSING
        if content.get(name) is not None:
            value = converted(content[name], kinds[name], prefix + name, errors)
            if len(errors) == before or value is not None:
                values[name] = value
            else:
                whole = whole and not needed and not isinstance(content[name], Mapping)
        elif needed:
            errors.append(f"{prefix}{name}: is missing")
            whole = False
    if not whole:
        return None
    try:
        return cls(**values)
    except ValueError as error:
        errors.append(f"{where}: {error}" if where else str(error))
        return None


def converted(value: Any, kind: Any, where: str, errors: list[str]) -> Any:
    """A value as a field's type wants it; None, and a fault noted, where it cannot be."""
    if is_dataclass(kind):
        return build(kind, value, where, errors)  # type: ignore[arg-type]
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        choices = [choice for choice in inner if choice is not type(None)]
        if len(choices) > 1:
            return _first(value, choices, where, errors)
        return converted(value, choices[0], where, errors)
    if origin is tuple and isinstance(value, (list, tuple)):
        each = [inner[0]] * len(value) if inner[1:] == (...,) else list(inner)
        if len(each) == len(value):
            before, numbered = len(errors), enumerate(zip(value, each, strict=True))
            items = tuple(converted(item, wanted, f"{where}[{i}]", errors) for i, (item, wanted) in numbered)
            return items if len(errors) == before else None
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        before = len(errors)
        found = {_text(key): converted(item, inner[1], f"{where}.{key}", errors) for key, item in value.items()}
        return found if len(errors) == before else None
    try:
        return _scalar(value, kind)
    except Misfit as misfit:
        errors.append(f"{where}: must be {misfit}, got {value!r}")
        return None


def _first(value: Any, choices: list[Any], where: str, errors: list[str]) -> Any:
    """A value as the first of several types that takes it."""
    for choice in choices:
        faults: list[str] = []
        found = converted(value, choice, where, faults)
        if not faults:
            return found
    errors.append(f"{where}: must be {' or '.join(map(_name, choices))}, got {value!r}")
    return None


def _scalar(value: Any, kind: Any) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is Any:
        return value
    if kind is str and isinstance(value, (str, int, float)):
        return _text(value)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and is_number and (isinstance(value, int) or value.is_integer()) and abs(value) <= MOST_INT:
        return int(value)
    if kind is float and is_number and abs(value) <= sys.float_info.max:  # neither infinite nor NaN
        return float(value)
    if get_origin(kind) is Literal and not isinstance(value, bool) and value in get_args(kind):
        return value
    raise Misfit(_name(kind))


def _name(kind: Any) -> str:
    """What a type is called to a person."""
    inner = get_args(kind)
    if get_origin(kind) is Literal:
        return ("one of " if len(inner) > 1 else "") + ", ".join(map(str, inner))
    if get_origin(kind) is tuple:
        return "a list" if inner[1:] == (...,) else f"[{', '.join(map(_name, inner))}]"
    return {str: "text", bool: "true or false", int: "a whole number", float: "a number"}.get(kind, "a mapping")


def _text(value: Any) -> str:
    """A YAML scalar as the text a data file would hold."""
    return str(value).lower() if isinstance(value, bool) else str(value)
