"""What is fuzzed: how an input of each kind is made, and who reads it."""
# ruff: noqa: B023 - what is chosen is called at once

from __future__ import annotations

import copy
import io
import json
import random
import shutil
import tarfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, -0.5, 1e-320, 1e308, float("inf"), float("nan"), "", " ", "0",
    "nan", "1e999", "x", "é", "\u202e", "\x00", "\ud800", "a" * 5_000, "../../x", "/etc/passwd", "https://[::1", "s3://",
    "file:///dev/zero", "$(id)", "{}", "[", [], {}, [None], [[]], {"": {}}, {"a": [1, {"b": None}]}, list(range(50)),
]  # fmt: skip
TOKENS = [
    b"", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xfe\xff", b"\r", b"\n", b"\r\n", b'"', b"'", b",", b";", b"\t",
    b"|", b"&a ", b"*a", b"<<: ", b"!!python/object/apply:os.system [id]", b"---\n", b"? ", b"- ", b": ", b"#",
    b"[", b"{", b"}" * 40, b"[" * 400, b"NaN", b"1e999", b"9" * 400, b"-", b"0x", b"2024-02-30", b"12:60",
    b"1.234,5", b"\\", b"\\u0000", b"\xe2\x80\xae", b"\xed\xa0\x80", b"=cmd|' /C calc'!A0", b"PK\x03\x04",
    b"\x1f\x8b", b"PAR1", b"\x93NUMPY",
]  # fmt: skip


def spoil(content: bytes, source: random.Random, most: int = 6) -> bytes:
    """A few changes of bytes: flipped, cut, repeated, replaced by what readers stumble over."""
    for _ in range(source.randint(1, most)):
        at, to = sorted(source.randint(0, len(content)) for _ in range(2))
        part = content[at:to][:2_000]
        content = source.choice(
            [
                lambda: content[:at] + source.choice(TOKENS) + content[at:],
                lambda: content[:at] + source.choice(TOKENS) + content[at + source.randint(1, 8) :],
                lambda: content[:at] + bytes([source.randrange(256)]) + content[at + 1 :],
                lambda: content[:at] + content[at + len(part) :],
                lambda: content[:at] + part * source.randint(2, 3) + content[at:],
                lambda: content[:to] if source.random() < 0.3 else content,
            ]
        )()
    return content


def spoil_tree(value: Any, source: random.Random) -> Any:
    """A value of JSON with a few parts replaced, taken away, renamed or moved."""
    value = copy.deepcopy(value)
    for _ in range(source.randint(1, 3)):
        places: list[tuple[Any, Any]] = []

        def walk(inner: Any) -> None:
            for key in list(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ():
                places.append((inner, key))
                walk(inner[key])

        walk(value)
        if not places:
            return source.choice(ODD)
        whole, key = source.choice(places)
        match source.randrange(5):
            case 0:
                del whole[key]
            case 1 if isinstance(whole, dict):
                whole[str(source.choice(ODD))] = whole.pop(key)
            case 2:
                whole[key] = copy.deepcopy(source.choice(places)[0])
            case 3 if isinstance(whole[key], (str, int, float)):
                whole[key] = source.choice([str(whole[key]), [whole[key]], {str(whole[key]): 1}, f"{whole[key]}x"])
            case _:
                whole[key] = copy.deepcopy(source.choice(ODD))
    return value


class Kind(ABC):
    """A kind of input.

    Arguments:
        folder: For what it writes.
    """

    name: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.seeds = self.prepare()

    @abstractmethod
    def prepare(self) -> list[Any]:
        """Inputs that are read rightly."""

    @abstractmethod
    def read(self, made: Any) -> None:
        """What a user's command does with it."""

    def make(self, source: random.Random) -> Any:
        """One input."""
        return spoil(source.choice(self.seeds), source)


def text_of(tree: Any) -> bytes:
    """A value as YAML, which JSON nearly is."""
    return json.dumps(tree, ensure_ascii=False).encode("utf-8", "surrogatepass")


class Cards(Kind):
    name = "cards"

    def prepare(self) -> list[Any]:
        from data.ingest.inspect import inspect, write_card

        (self.folder / "rows.csv").write_text(TABLE)
        texts = [(ROOT / "data/catalog/digits.yaml").read_text().replace("name: digits", "name: x")]
        texts.append(write_card(inspect("rows.csv", "x", self.folder, label="c"), self.folder).read_text())
        return [text.encode() for text in texts]

    def make(self, source: random.Random) -> bytes:
        text = source.choice(self.seeds)
        if source.random() < 0.5:
            return spoil(text, source)
        return text_of(spoil_tree(json.loads(json.dumps(YAML(typ="safe").load(text), default=str)), source))

    def read(self, made: bytes) -> None:
        from data.cards import load_card

        path = self.folder / "data/catalog/x.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made)
        load_card("x", self.folder)


class Params(Cards):
    name = "params"

    def prepare(self) -> list[Any]:
        return [(ROOT / "params.yaml").read_bytes()]

    def read(self, made: bytes) -> None:
        from pipelines import config

        path = self.folder / "params.yaml"
        path.write_bytes(made)
        config.load(path)


class Requests(Kind):
    name = "requests"

    def prepare(self) -> list[Any]:
        from data import formats
        from pipelines.serving.domains import conversion

        columns = [
            {"name": "a", "type": "continuous", "dtype": "float64", "min": 0, "max": 1, "mean": 0.5, "std": 0.2},
            {"name": "b", "type": "categorical", "categories": ["x", "y"]},
        ]
        facts = {"domain": {"kind": "image", "channels": 1, "height": 2, "width": 2, "levels": 256}, "class_names": []}
        table = {"domain": {"kind": "table", "columns": columns}, "class_names": ["no", "yes"]}
        self.rows = [conversion(each, {}, formats) for each in (facts, table)]
        return [
            {"inputs": [[[[1], [2]], [[3], [4]]]], "params": {"task": "encode", "n": 3, "label": 1}},
            {"dataframe_split": {"columns": ["a", "b"], "data": [[0.5, "x"], [None, "y"]]}, "params": {"seed": 1}},
            {"dataframe_records": [{"a": 0.5, "b": "x"}], "params": {"given": {"a": 1}, "draws": 2, "sigma": 0.5}},
            {"instances": {"a": [1, 2], "b": ["x", None]}, "params": {"label": "yes", "strength": 0.5, "rate": 0.1}},
        ]

    def make(self, source: random.Random) -> tuple[bytes, str]:
        if source.random() < 0.1:
            return spoil(TABLE.encode(), source), "text/csv"
        body = source.choice(self.seeds)
        made = text_of(spoil_tree(body, source)) if source.random() < 0.6 else spoil(text_of(body), source)
        return made, "application/json"

    def read(self, made: tuple[bytes, str]) -> None:
        from pipelines.serving import params, rest

        rows, asked = rest.parse(*made, 2**20)
        options = params.checked(asked, ["no", "yes"], 2)
        problems = []
        for conversion in self.rows:
            try:
                if rows is not None:
                    conversion.read(rows, "impute")
                if options["given"] and hasattr(conversion, "read_given"):
                    conversion.read_given(options["given"])
            except ValueError as error:
                problems.append(error)
        if len(problems) == len(self.rows):  # rows of images are none of tables
            raise problems[0]


class Archives(Kind):
    name = "archives"

    def prepare(self) -> list[Any]:
        seeds = []
        for form in ("w", "w:gz", "w:bz2", "w:xz"):
            written = io.BytesIO()
            with tarfile.open(fileobj=written, mode=form) as archive:
                for name in ("a/1.png", "a/" + "long" * 40 + ".png", "b/x.csv"):
                    info = tarfile.TarInfo(name)
                    info.size = 1000
                    archive.addfile(info, io.BytesIO(b"x" * 1000))
            seeds.append((".tar" + form[1:].replace(":", "."), written.getvalue()))
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
            written = io.BytesIO()
            with zipfile.ZipFile(written, "w", method) as archive:
                for name in ("a/1.png", "b/x.csv"):
                    archive.writestr(name, b"x" * 1000)
            seeds.append((".zip", written.getvalue()))
        return seeds

    def make(self, source: random.Random) -> tuple[str, bytes]:
        suffix, content = source.choice(self.seeds)
        return suffix, spoil(content, source)

    def read(self, made: tuple[str, bytes]) -> None:
        from data.sources.archive import is_archive, members

        path = self.folder / f"x{made[0]}"
        path.write_bytes(made[1])
        if is_archive(path):
            for member in members(path):
                if not member.fault:
                    member.read()


TABLE = "id,a,b,c,when,price\n" + "".join(
    f"{i},{i % 7 / 3:.3f},{'xyz'[i % 3]},{['no', 'yes'][i % 2]},2024-0{i % 9 + 1}-1{i % 9} 10:0{i % 9},€ {i},50\n"
    for i in range(60)
)


class Tables(Kind):
    name = "tables"

    def prepare(self) -> list[Any]:
        import pandas as pd

        frame = pd.read_csv(io.StringIO(TABLE.replace("€ ", "").replace(",50\n", "\n")))
        seeds = [(".csv", TABLE.encode()), (".csv", TABLE.replace(",", ";").encode("latin-1", "replace"))]
        seeds += [(".csv", TABLE.encode("utf-16")), (".jsonl", frame.to_json(orient="records", lines=True).encode())]
        for suffix, write in {".parquet": frame.to_parquet, ".feather": frame.to_feather, ".npy": None}.items():
            written = io.BytesIO()
            if write is None:
                import numpy as np

                np.save(written, np.zeros((20, 4, 4), np.uint8))
            else:
                write(written)
            seeds.append((suffix, written.getvalue()))
        return seeds

    def make(self, source: random.Random) -> tuple[str, bytes]:
        suffix, content = source.choice(self.seeds)
        return suffix, spoil(content, source)

    def read(self, made: tuple[str, bytes]) -> None:
        from data.ingest.build import build
        from data.ingest.inspect import inspect
        from data.readers.base import here

        shutil.rmtree(self.folder)
        self.folder.mkdir()
        (self.folder / f"x{made[0]}").write_bytes(made[1])
        found = inspect(f"x{made[0]}", "x", self.folder)
        build(found.card, self.folder, self.folder / "prepared", here)


class Checkpoints(Kind):
    name = "checkpoints"

    def prepare(self) -> list[Any]:
        import torch

        from models import build
        from pipelines.storage import model_folder
        from pipelines.storage.stores import open_store
        from pipelines.training import checkpoint
        from pipelines.training.checkpoint import Checkpoint

        domain = {"kind": "image", "channels": 1, "height": 4, "width": 4, "levels": 17}
        spec = {"family": "vae", "config": {"width": 8, "latent": 4}, "domain": domain, "classes": 3}
        model_folder.save(build(spec), self.folder / "model", {**spec, "dataset": "x", "class_names": list("abc")})
        facts = {"schema": checkpoint.SCHEMA, "step": 1, "identity": {"a": 1}, "seen": 3}
        checkpoint.save(open_store(self.folder / "state"), Checkpoint(1, {"x": torch.zeros(3)}, facts))
        self.store = open_store(self.folder / "state")
        (step,) = (self.folder / "state").glob("step-*")
        self.places = {"model": self.folder / "model", "state": step}
        return [
            (name, path.name, path.read_bytes()) for name, folder in self.places.items() for path in folder.iterdir()
        ]

    def make(self, source: random.Random) -> tuple[str, str, bytes]:
        name, file, content = source.choice(self.seeds)
        if file.endswith(".json") and source.random() < 0.7:
            return name, file, text_of(spoil_tree(json.loads(content), source))
        return name, file, spoil(content, source)

    def read(self, made: tuple[str, str, bytes]) -> None:
        from data.files import sha256
        from pipelines.storage import model_folder
        from pipelines.training import checkpoint

        folder = self.places[made[0]]
        for name, file, content in self.seeds:
            (self.places[name] / file).write_bytes(content)
        (folder / made[1]).write_bytes(made[2])
        listing = folder / "manifest.json"
        if made[1] != "manifest.json":  # whoever can write one file can write its hash
            listed = json.loads(listing.read_text())
            listed.get("files", listed)[made[1]] = sha256(folder / made[1])
            listing.write_text(json.dumps(listed))
        if made[0] == "model":
            model_folder.load(folder)
        else:
            checkpoint.read(self.store, folder.name)


KINDS: dict[str, Callable[[Path], Kind]] = {
    kind.name: kind for kind in (Cards, Params, Requests, Archives, Tables, Checkpoints)
}
"""All kinds, by name."""
