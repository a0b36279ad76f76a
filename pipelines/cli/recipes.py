"""The recipe that `fivefold data add` writes: the settings that suit the data, said and not set; its owner sets."""

from __future__ import annotations

from typing import Any

from models import FAMILIES
from pipelines.defaults import Facts, defaults, expected_seconds
from pipelines.defaults.layers import leaves
from pipelines.training.durations import format_duration

HEAD = """\
# Settings of `{name}` ({facts}), in the layout of params.yaml, which goes before this file.
# Nothing is set yet: the lines below say what the rules for such data give on this machine, and why. Rules may become
# better; take away the number signs before a line and the lines it stands under to keep its value. `fivefold settings`
# says what holds.
#
# Training takes about {time};
# `budget: 5m` in params.yaml asks for another time.
"""


def recipe_text(name: str, facts: Facts) -> str:
    """A recipe for a dataset of which this is known."""
    settings, why = defaults(facts)
    lines = []
    for section, content in settings.items():
        lines.append(f"# {section}:")
        for part, values in sorted(content.items(), key=lambda item: item[0] == "search"):
            if not isinstance(values, dict):
                lines.append(f"#   {part}: {_yaml(values)}{_because(why, f'{section}.{part}')}")
            elif part == "search":
                lines.append("#   search:")
                spans = {key.rpartition(".")[0]: {} for key, _ in leaves(values)}
                for key, value in leaves(values):
                    above, _, end = key.rpartition(".")
                    spans[above][end] = value
                lines += [
                    f"#     {key}: {{{', '.join(f'{end}: {_yaml(value)}' for end, value in span.items())}}}"
                    for key, span in spans.items()
                ]
            else:
                lines.append(f"#   {part}:")
                lines += [
                    f"#     {key}: {_yaml(value)}{_because(why, f'{section}.{part}.{key}')}"
                    for key, value in values.items()
                ]
    head = HEAD.format(name=name, facts=facts.text, time=training_time(facts))
    return f"{head}\n" + "\n".join(lines) + "\n"


def training_time(facts: Facts) -> str:
    """How long each family trains on this machine by default, in words; empty where nothing is known."""
    settings, _ = defaults(facts)
    seconds = {
        family: expected_seconds(family, facts, settings[family]["training"])
        for family in FAMILIES
        if family in settings
    }
    if not all(seconds.values()):
        return "as long as the GPU needs"
    each = ", ".join(f"{family} {format_duration(value)}" for family, value in seconds.items())
    return f"{format_duration(sum(seconds.values()))} ({each})"


def _because(why: dict[str, str], key: str) -> str:
    return f"  # {why[key]}" if key in why else ""


def _yaml(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
