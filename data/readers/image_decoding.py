"""Encoded images to arrays, with every conversion defined and counted.

Imports little, because worker processes import it afresh.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from data.cards import ImageShape
from data.domains.image import image_hashes

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
    ".pnm", ".avif", ".avifs",
)  # fmt: skip
TURNED = (5, 6, 7, 8)
"""EXIF orientations under which width and height change places."""
DARK = 65_536 // 8
"""A 16-bit image without a brighter pixel was meant for a smaller range (12 bits, say)."""


class PlainJpeg(ImageFile.ImageFile):
    """Reads the header of an ordinary JPEG file; leaves all others to Pillow's own plugin, which takes thrice as long.

    Ordinary is: grey or three components of 8 bits, and no metadata but JFIF's.
    """

    format = "JPEG"
    format_description = "JPEG"

    def _open(self) -> None:
        head = self.fp.read(1024)
        at, frame = 2, 0
        while not frame and at + 9 < len(head):
            marker = head[at + 1]
            if head[at] != 0xFF or marker not in (0xE0, 0xDB, 0xC4, 0xC0, 0xC1, 0xC2, 0xDD):
                break
            frame = at if marker in (0xC0, 0xC1, 0xC2) else 0
            at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
        precision, components = head[frame + 4], head[frame + 9]
        height, width = struct.unpack(">HH", head[frame + 5 : frame + 9])
        if not frame or precision != 8 or components not in (1, 3) or not height or not width:
            raise SyntaxError("not an ordinary JPEG file")
        self._mode = "L" if components == 1 else "RGB"
        self._size = width, height
        self.tile = [ImageFile._Tile("jpeg", (0, 0, width, height), 0, (self._mode, ""))]


def _jpeg(stream: io.BytesIO) -> ImageFile.ImageFile:
    """A JPEG image: quickly if it is an ordinary one."""
    try:
        return PlainJpeg(stream)
    except (SyntaxError, AttributeError, IndexError):
        stream.seek(0)
        return JpegImagePlugin.JpegImageFile(stream)


PLUGINS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": _jpeg,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
}
"""The readers by format; no other of Pillow's plugins ever sees a stranger's bytes."""


class Fault(Exception):
    """What is wrong with an image.

    Arguments:
        reason: A few words that are the same for every image with this fault.
        detail: Expected and got.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """A batch of encoded images on its way to a worker.

    Arguments:
        target: What they are brought to.
        names: What messages call them.
        blobs: Their bytes.
        label: Their classes, `[n]`.
        split: Their published splits, `[n]`.
        source: Their positions in the source, `[n]`.
    """

    target: ImageShape
    names: Sequence[str]
    blobs: Sequence[bytes]
    label: NDArray[np.int64]
    split: NDArray[np.int8]
    source: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """A batch of decoded images on its way back.

    Arguments:
        x: The good ones, `[kept, height, width, channels]`.
        content: Their hashes, `[kept]`.
        label, split, source: Of the good ones, `[kept]`.
        conversions: `(what, name)` of each conversion.
        faults: `(name, reason, detail)` of each bad image.
    """

    x: NDArray[np.uint8]
    content: NDArray[np.uint64]
    label: NDArray[np.int64]
    split: NDArray[np.int8]
    source: NDArray[np.int64]
    conversions: list[tuple[str, str]]
    faults: list[tuple[str, str, str]]


def decode_batch(batch: Encoded) -> Decoded:
    """Decode a batch of images; runs anywhere."""
    target = batch.target
    x = np.empty((len(batch.blobs), *target.shape), np.uint8)
    kept: list[int] = []
    conversions: list[tuple[str, str]] = []
    faults: list[tuple[str, str, str]] = []
    allowed = level_table(target.levels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warnings name no file; what matters is checked here
        for name, blob in zip(batch.names, batch.blobs, strict=True):
            noted: list[str] = []
            try:
                decoded = decode(blob, target, noted.append)
                if allowed is not None and not allowed[decoded].all():
                    value = int(decoded[~allowed[decoded]].flat[0])
                    raise Fault("pixel off its levels", f"expected one of {target.levels} levels, got {value}")
            except Fault as fault:
                faults.append((name, fault.reason, fault.detail))
                continue
            x[len(kept)] = decoded
            conversions += [(what, name) for what in noted]
            kept.append(len(kept) + len(faults))
    x = x[: len(kept)]
    return Decoded(
        x=x,
        content=image_hashes(x),
        label=batch.label[kept],
        split=batch.split[kept],
        source=batch.source[kept],
        conversions=conversions,
        faults=faults,
    )


def level_table(levels: int) -> NDArray[np.bool_] | None:
    """Which values 0 … 255 a pixel of so many levels may take; `None` when all, `[256]`."""
    if levels == 256:
        return None
    allowed = np.zeros(256, np.bool_)
    allowed[np.round(np.arange(levels) * (255 / (levels - 1))).astype(np.intp)] = True
    return allowed


def image_format(blob: bytes) -> str:
    """The format of an encoded image by its first bytes, empty when it is none of those read here."""
    if blob.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if blob.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if blob[:4] == b"RIFF" and blob[8:12] == b"WEBP":
        return "WEBP"
    if blob.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if blob.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if blob[:1] == b"P" and blob[1:2] in b"123456" and blob[2:3].isspace():
        return "PPM"
    if blob[4:12] in (b"ftypavif", b"ftypavis"):
        return "AVIF"
    return "BMP" if blob.startswith(b"BM") else ""


def opened(blob: bytes, max_pixels: int) -> Image.Image:
    """An image whose header has been read and whose size is bearable; its pixels wait.

    Raises:
        Fault: If it is empty, not an image, or has too many pixels.
    """
    if not blob:
        raise Fault("empty file", "expected an image, got 0 bytes")
    kind = image_format(blob)
    if blob[4:8] == b"ftyp" and blob[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"heim", b"heis"):
        raise Fault("HEIC image", "expected an image that Pillow reads, got HEIC. Convert it to JPEG or AVIF")
    if not kind:
        raise Fault(
            "not an image",
            f"expected PNG, JPEG, WebP, AVIF, TIFF, PPM, BMP or GIF, got a file that starts with {blob[:8]!r}",
        )
    try:
        image = PLUGINS[kind](io.BytesIO(blob))
    except Exception as error:  # Pillow's plugins raise whatever a stranger's bytes make them raise
        raise Fault("broken image", f"its {kind} header cannot be read: {error}") from None
    if image.width * image.height > max_pixels:
        size = f"{image.width}×{image.height}"
        raise Fault("too many pixels", f"expected at most {max_pixels} (image.max_pixels), got {size}")
    return image


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an image once it is turned as its EXIF orientation says."""
    try:
        turned = "exif" in image.info and image.getexif().get(0x0112, 1) in TURNED
    except Exception:  # a stranger's EXIF data
        turned = False
    return (image.height, image.width) if turned else image.size


def decode(blob: bytes, target: ImageShape, note: Callable[[str], Any]) -> NDArray[np.uint8]:
    """One image as an array, `[height, width, channels]`.

    Arguments:
        blob: The encoded image.
        target: What it is brought to.
        note: Called with the name of each conversion.
    Raises:
        Fault: If the image is broken or not what the target wants.
    """
    image = opened(blob, target.max_pixels)
    try:
        image.load()
    except Exception as error:  # as above
        raise Fault("broken image", f"its pixels cannot be read: {error}") from None
    plain = "L" if target.channels == 1 else "RGB"
    special = (
        image.format in ("TIFF", "AVIF")
        or "exif" in image.info
        or "transparency" in image.info
        or getattr(image, "n_frames", 1) > 1
    )
    if image.format == "JPEG" and not special and blob.find(b"\xff\xd9") != len(blob) - 2:
        note("JPEG that goes on after an end mark (damaged, or more than a picture)")
    if image.mode != plain or special or image.format == "GIF" or (image.format == "PNG" and blob[24] == 16):
        image = _plain(image, blob, target, note)
    if image.size != (target.width, target.height):
        image = _resized(image, target, note)
    pixels = np.frombuffer(image.tobytes(), np.uint8).reshape(target.height, target.width, -1)
    if pixels.shape[-1] == target.channels:
        return pixels
    if target.channels == 3:
        note("grey to colour (the value repeated)")
        return np.repeat(pixels, 3, axis=-1)
    if (pixels == pixels[..., :1]).all():
        note("grey stored as colour, to grey")
        return pixels[..., :1]
    raise Fault("wrong number of channels", "expected a grey image, got a colour image")


def _plain(image: Image.Image, blob: bytes, target: ImageShape, note: Callable[[str], Any]) -> Image.Image:
    """An 8-bit grey or RGB image, upright and opaque."""
    if getattr(image, "n_frames", 1) > 1:
        note("animation to its first frame")
        image.seek(0)
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)
        dark = ", all below an eighth of the range: scale them first, or they are nearly black"
        note("16-bit to 8-bit" + (dark if wide.max() < DARK else ""))
        image = _carry(image, Image.fromarray(((wide + 128) // 257).astype(np.uint8)))
    elif image.mode in ("I", "F"):
        image = _carry(image, Image.fromarray(_to_bytes(np.asarray(image), note)))
    elif image.format == "PNG" and len(blob) > 24 and blob[24] == 16:
        note("16-bit to 8-bit")
    if ("exif" in image.info or image.format == "TIFF") and image.getexif().get(0x0112, 1) not in (0, 1):
        note("turned upright by its EXIF orientation")
        image = ImageOps.exif_transpose(image)
    if image.mode == "1":
        note("1-bit to 8-bit")
        image = _carry(image, image.convert("L"))
    if image.mode in ("P", "PA"):
        note("palette to colour")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() != (255, 255):
            note(f"transparency to a {target.alpha} background")
        ground = Image.new("RGBA", rgba.size, target.alpha)
        return Image.alpha_composite(ground, rgba).convert("RGB")
    if image.mode not in ("L", "RGB"):
        if image.mode not in ("P", "PA"):
            note(f"{image.mode} to RGB")
        image = image.convert("RGB")
    return image


def _to_bytes(wide: NDArray[Any], note: Callable[[str], Any]) -> NDArray[np.uint8]:
    """Grey values of 32 bits as those of 8, by the range that they are of: 0 to 1, to 255 or to 65535.

    Raises:
        Fault: If they are of none.
    """
    low, high = float(wide.min()), float(wide.max())
    tops = (1.0, 255.0, 65_535.0)[not np.issubdtype(wide.dtype, np.floating) :]
    top = next((top for top in tops if low >= 0 and high <= top), None)  # no number is neither
    if top is None:
        raise Fault(
            "unsupported pixel type",
            f"expected values from 0 to 1, 255 or 65535 where a pixel has 32 bits, got {low:g} to {high:g}. Scale them "
            "to 8 or 16 bits first, all images alike",
        )
    note(f"32-bit of 0 to {top:g} to 8-bit")
    return np.round(wide * (255 / top)).astype(np.uint8)


def _carry(old: Image.Image, new: Image.Image) -> Image.Image:
    """A converted image that keeps the metadata still needed."""
    new.info = {key: old.info[key] for key in ("exif",) if key in old.info}
    return new


def _resized(image: Image.Image, target: ImageShape, note: Callable[[str], Any]) -> Image.Image:
    size = (target.width, target.height)
    if target.resize == "none":
        raise Fault(
            "wrong size",
            f"expected {target.width}×{target.height} (width×height), got {image.width}×{image.height}; "
            "`image: {resize: crop}`, `pad` or `stretch` in the card brings all to one size",
        )
    note(f"resized ({target.resize})")
    if target.resize == "pad":
        ground = {"L": 255, "RGB": (255, 255, 255)}[image.mode] if target.alpha == "white" else 0
        return ImageOps.pad(image, size, Image.Resampling.LANCZOS, color=ground)
    if target.resize == "stretch":
        return image.resize(size, Image.Resampling.LANCZOS)
    return ImageOps.fit(image, size, Image.Resampling.LANCZOS)
