"""Sources that DVC watches: `data/dvc.yaml` has a stage for each dataset of a file or folder here.

The stage depends on the source, and what it makes is the card as it stands, on which `prepare` depends: so `dvc status`
and `dvc repro` notice a source that was edited, and the stage refuses it until the card states it.
"""

from __future__ import annotations

import json
from pathlib import Path

from data.cards import Card
from data.files import write_atomically
from data.schema import parse_yaml
from pipelines.paths import card_file

STAGES = Path("data/dvc.yaml")

TEXT = """\
# Where the source of each dataset lies, for DVC to watch; written by `fivefold data add` and `fivefold data update`.
# A source that was edited is refused, what changed is named, and `fivefold data update NAME` accepts it.

stages:
  source:
    foreach:
{sources}
    do:
      wdir: ..
      cmd: fivefold data update --check ${{key}}
      deps:
        - ${{item.path}}
      outs:
        - data/catalog/${{key}}.yaml:  # neither cached nor removed: what it states is compared
            cache: false
            persist: true
"""


def watch(card: Card, root: Path) -> None:
    """Let DVC watch the source of a dataset; not that of one which is fetched or ships with a dependency."""
    sources = watched(root)
    if card.source.path:
        sources[card.name] = place(card)
    else:
        sources.pop(card.name, None)
    kept = {name: path for name, path in sources.items() if name == card.name or (root / card_file(name)).is_file()}
    if kept:
        lines = (f"      {json.dumps(name)}: {{path: {_quoted(path)}}}" for name, path in sorted(kept.items()))
        write_atomically(root / STAGES, TEXT.format(sources="\n".join(lines)))
    else:
        (root / STAGES).unlink(missing_ok=True)


def watched(root: Path) -> dict[str, str]:
    """By dataset, the path that DVC watches.

    Raises:
        ValueError: If the file of these stages is damaged.
    """
    path = root / STAGES
    if not path.exists():
        return {}
    try:
        sources = parse_yaml(path.read_text(encoding="utf-8"), path)["stages"]["source"]["foreach"]
        return {str(name): str(entry["path"]).replace("\\${", "${") for name, entry in sources.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}). Remove it; `fivefold data update NAME` writes it.") from None


def place(card: Card) -> str:
    """Where DVC finds a card's source: below the project's root, or anywhere on this machine."""
    return Path(card.source.path).expanduser().as_posix()


def _quoted(path: str) -> str:
    """A path in YAML, in which DVC replaces nothing."""
    return json.dumps(path.replace("${", "\\${"), ensure_ascii=False)
