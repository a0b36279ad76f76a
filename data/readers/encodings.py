"""In which encoding a text file is, found from its bytes, and reading it as UTF-8."""

from __future__ import annotations

import codecs
import re
import unicodedata
from contextlib import closing
from pathlib import Path

from data.sources.inflate import inflated
from data.sources.streams import Readable

PIECE = 1 << 20
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
"""Byte order marks."""
EAST_ASIAN = ("shift_jis", "gb18030", "euc_kr", "big5", "euc_jp")
CYRILLIC = ("cp1251", "koi8_r")


def detect(path: Path) -> tuple[str, str]:
    """The encoding of a file, and what speaks for it (empty for UTF-8).

    UTF-8 is what decodes as such throughout. Otherwise letters that follow one another in long runs are no
    Western text: multi-byte encodings of East Asia, then Cyrillic ones are tried; else it is cp1252, or
    where a byte is not of cp1252, that of old Macs or latin-1.
    """
    with closing(inflated(path)) as stream:
        head = stream.read(PIECE)
        for mark, name in MARKS:
            if head.startswith(mark):
                return ("utf-8", "") if name == "utf-8-sig" else (name, "it begins with a byte order mark")
        zeros = [head[start::2].count(0) / max(1, len(head[start::2])) for start in (0, 1)]
        if len(head) > 3 and max(zeros) > 0.3 and min(zeros) < 0.02:
            return ("utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"), "every other byte is 0"
        lines: list[bytes] = []
        good = bad = 0
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        piece = head
        while True:
            text = decoder.decode(piece, final=not piece)
            if not text.isascii():
                wrong = sum(1 for letter in text if "\udc80" <= letter <= "\udcff")
                bad += wrong
                good += sum(1 for letter in text if letter > "\x7f") - wrong
            if not piece.isascii() and sum(map(len, lines)) < PIECE:
                lines += [line for line in piece.split(b"\n") if not line.isascii()][:2000]
            if not piece:
                break
            piece = stream.read(PIECE)
    if not bad or good > 20 * bad:
        return "utf-8", ""
    return _legacy(b"\n".join(lines))


def _legacy(sample: bytes) -> tuple[str, str]:
    """An 8-bit or East Asian encoding, from lines that are not ASCII."""
    high = sum(byte > 127 for byte in sample)
    runs = sum(len(run) for run in _runs(sample) if len(run) > 2)
    try:
        sample.decode("cp1252")
        western = True
    except UnicodeDecodeError:
        western = False
    if runs > 0.5 * high or not western:
        best = max(EAST_ASIAN + CYRILLIC, key=lambda name: _plausible(sample, name))
        if _plausible(sample, best) > 0.7:
            return best, "it is not UTF-8, and reads as letters of one script so"
    if western:
        return "cp1252", "it is not UTF-8"
    letters = [letter for letter in sample.decode("mac_roman") if letter > "\x7f"]
    if sum(map(str.isalpha, letters)) > 0.9 * len(letters):
        return "mac_roman", "it is neither UTF-8 nor cp1252, and reads as words so"
    return "latin-1", "it is neither UTF-8 nor cp1252"


def _runs(sample: bytes) -> list[bytes]:
    return bytes(byte if byte > 127 else 32 for byte in sample).split()


def _plausible(sample: bytes, encoding: str) -> float:
    """The share of its letters beyond ASCII that are frequent in the encoding's script; 0 if it does not decode."""
    try:
        text = sample.decode(encoding)
    except UnicodeDecodeError:
        return 0.0
    letters = [letter for letter in text if letter > "\x7f"]
    if not letters:
        return 0.0
    if encoding in CYRILLIC:  # in another encoding small and capital letters change places
        return sum("а" <= letter <= "я" or letter == "ё" for letter in letters) / len(letters)
    runs = re.findall(r"[a-z]?[^\x00-\x7f]+", text)
    if sum(len(run) == 2 and run[0].isascii() for run in runs) > 0.3 * len(runs):  # accents within words
        return 0.0
    kinds = [unicodedata.name(letter, "") for letter in letters]
    common = sum(kind.startswith(("CJK", "HIRAGANA", "KATAKANA LETTER", "HANGUL", "IDEOGRAPHIC")) for kind in kinds)
    script = {"shift_jis": ("HIRAGANA", "KATAKANA L"), "euc_jp": ("HIRAGANA", "KATAKANA L"), "euc_kr": ("HANGUL",)}
    own = sum(kind.startswith(script[encoding]) for kind in kinds) if encoding in script else 0
    usual = sum(_usual(letter, encoding) for letter in letters)
    return (0.5 * common + 0.5 * max(own, usual) + 0.25 * own) / len(letters)


def _usual(letter: str, encoding: str) -> bool:
    """Whether a letter is among the frequent ones, which national standards list first."""
    table, low, high = {
        "shift_jis": ("shift_jis", 0x82, 0x97),
        "euc_jp": ("shift_jis", 0x82, 0x97),
        "gb18030": ("gb2312", 0xB0, 0xF7),
        "big5": ("big5", 0xA4, 0xC6),
        "euc_kr": ("euc_kr", 0xB0, 0xC8),
    }[encoding]
    try:
        code = letter.encode(table)
    except UnicodeEncodeError:
        return False
    return len(code) == 2 and low <= code[0] <= high


class Decoded:
    """A stream of text in any encoding as a stream of UTF-8.

    Arguments:
        stream: Bytes.
        encoding: Theirs.
        path: For messages.
    """

    def __init__(self, stream: Readable, encoding: str, path: Path) -> None:
        self._stream, self._path, self._encoding = stream, path, encoding
        plain = codecs.lookup(encoding).name in ("utf-8", "ascii")
        self._decoder = None if plain else codecs.getincrementaldecoder(encoding)()
        self._start = True
        self._ready = b""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes of UTF-8; fewer only at the end.

        Raises:
            ValueError: If the bytes are none of that encoding.
        """
        while size < 0 or len(self._ready) < size:
            piece = self._stream.read(PIECE if size < 0 else max(size, 1))
            text = self._utf8(piece)
            if self._start and text:
                text = text.removeprefix(codecs.BOM_UTF8)
                self._start = False
            self._ready += text
            if not piece:
                break
        size = len(self._ready) if size < 0 else size
        taken, self._ready = self._ready[:size], self._ready[size:]
        return taken

    def _utf8(self, piece: bytes) -> bytes:
        if self._decoder is None:
            return piece
        try:
            return self._decoder.decode(piece, final=not piece).encode("utf-8", "surrogatepass")
        except UnicodeError as error:
            if not isinstance(error, UnicodeDecodeError):  # a missing byte order mark, which has no place
                raise ValueError(
                    f"{self._path} is not text in {self._encoding}: {error}. Fix source.encoding in the card."
                ) from None
            raise ValueError(
                f"{self._path} is not text in {self._encoding}: {error.reason} "
                f"({error.object[error.start : error.end]!r}). "
                "Fix source.encoding in the card."
            ) from None
