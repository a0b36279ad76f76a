"""What vouches for a version's files: a digest over all of them in its tags, and a signature where there is a key.

The digest is what `sha256sum` tells of the files, sorted, hashed again; in the folder that MLflow downloads:

    find . -type f ! -path ./registered_model_meta -exec sha256sum {} + | LC_ALL=C sort | sha256sum

Tags lie in the tracking database, files with the artifacts: who can write only to the latter is found out. Who can
write to both is found out by a signature (Ed25519) over the digest and the model's name. The private key is where
models are registered (`FIVEFOLD_SIGNING_KEY`), the public key is pinned where they are used (`FIVEFOLD_TRUSTED_KEYS`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.serving import entry

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

DIGEST, SIGNATURE = TAGS = "files_digest", "signature"
"""Tags of a version, and of the logged model that it was made of."""

SIGNING_KEY, TRUSTED_KEYS = "FIVEFOLD_SIGNING_KEY", "FIVEFOLD_TRUSTED_KEYS"
"""Environment variables: PEM files of the private key, and of the public keys that are trusted."""

SERVED = "served_model.py"
"""Name of the entry in a model's folder."""


def staged(package: Path, temporary: Path) -> Path:
    """The entry beside the code that it checks, for MLflow, which runs it once when it saves a model."""
    root = temporary / "staged"
    shutil.copytree(package, root / "code" / package.name)
    shutil.copyfile(str(entry.__file__), root / SERVED)
    seal(root)
    return root


def seal(folder: Path) -> None:
    """Write the list of a model's files that its entry checks; the last thing done to it."""
    (folder / entry.NO_BYTECODE).write_text(
        "Python keeps no compiled files here: every file of this folder is listed.\n"
    )
    (folder / entry.LIST).unlink(missing_ok=True)
    listed = {name: entry.sha256(path) for name, path in entry.files(folder)}
    text = json.dumps({"files": listed}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / entry.LIST).write_text(text, encoding="utf-8")


def files_digest(folder: str | Path) -> str:
    """SHA-256 over the names and hashes of a folder's files.

    Raises:
        ValueError: If it holds a link or the like.
    """
    lines = sorted(f"{entry.sha256(path)}  ./{name}\n".encode() for name, path in entry.files(folder))
    return hashlib.sha256(b"".join(lines)).hexdigest()


def vouchers(name: str, folder: Path) -> dict[str, str]:
    """The tags that vouch for a model's files: the digest and, where there is a key, the signature.

    Raises:
        ValueError: If the key cannot be used.
    """
    digest = files_digest(folder)
    key = signing_key()
    return {DIGEST: digest} | ({SIGNATURE: base64.b64encode(key.sign(_message(name, digest))).decode()} if key else {})


def complete(name: str, tags: Mapping[str, str]) -> bool:
    """Whether tags vouch for a version as one that is registered now would be: with our signature if there is a key."""
    key = signing_key()
    return bool(tags.get(DIGEST)) and (key is None or _signed(name, tags, [key.public_key()]))


def compare(name: str, tags: Mapping[str, str], folder: Path, keys: str | Path | None = None) -> str:
    """Compare a downloaded version with its tags, before anything of it is imported.

    Arguments:
        name: Of the registered model.
        tags: Of the version.
        folder: What was downloaded.
        keys: A file of trusted public keys; by default what `FIVEFOLD_TRUSTED_KEYS` names.
    Returns:
        What vouches for it, in words.
    Raises:
        ValueError: If the files are others, or are not signed by a key that is trusted.
    """
    expected, fix = tags.get(DIGEST, ""), "Do not load it; register the model again."
    if not expected:
        raise ValueError(f"nothing vouches for its files: it has no tag {DIGEST}. {fix}")
    found = files_digest(folder)
    if found != expected:
        raise ValueError(f"its files have digest {found[:12]}, its tags say {expected[:12]}: {_changed(folder)}. {fix}")
    entry.vouched(folder)
    trusted = trusted_keys(keys)
    if not trusted:
        signed = "signed, but no key is pinned here" if tags.get(SIGNATURE) else "not signed"
        return f"files digest {expected[:12]}, {signed}"
    if not _signed(name, tags, trusted):
        what = "is not by a key that is trusted here" if tags.get(SIGNATURE) else "is missing"
        raise ValueError(f"its signature {what} ({keys or os.environ.get(TRUSTED_KEYS)}). {fix}")
    return f"files digest {expected[:12]}, signed by a trusted key"


def _changed(folder: Path) -> str:
    try:
        entry.vouched(folder)
    except ValueError as error:
        return str(error).split(". ")[0]
    return "they were replaced together with the list of them"


def signing_key() -> Ed25519PrivateKey | None:
    """The key that models are signed with; `None` where none is set.

    Raises:
        ValueError: If the file holds no Ed25519 key, or others can read it.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    named = os.environ.get(SIGNING_KEY, "")
    if not named:
        return None
    fix = "Make one with `openssl genpkey -algorithm ed25519 -out key.pem && chmod 600 key.pem`."
    try:
        if os.name == "posix" and Path(named).stat().st_mode & 0o077:
            raise ValueError(f"others can read it: `chmod 600 {named}`")
        key = load_pem_private_key(Path(named).read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{SIGNING_KEY}: {named} cannot be used: {error}. {fix}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{SIGNING_KEY}: {named} holds a key of another kind than Ed25519. {fix}")
    return key


def trusted_keys(path: str | Path | None = None) -> list[Ed25519PublicKey]:
    """The public keys that are trusted; none where none are set.

    Raises:
        ValueError: If the file holds something else than Ed25519 public keys.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    named = str(path or os.environ.get(TRUSTED_KEYS, ""))
    if not named:
        return []
    fix = "It must hold public keys, as `openssl pkey -in key.pem -pubout` writes them."
    try:
        blocks = re.findall(rb"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----", Path(named).read_bytes(), re.DOTALL)
        keys = [load_pem_public_key(block) for block in blocks]
    except (OSError, ValueError) as error:
        raise ValueError(f"the trusted keys in {named} cannot be used: {error}. {fix}") from error
    found = [key for key in keys if isinstance(key, Ed25519PublicKey)]
    if not found or len(found) < len(keys):
        raise ValueError(f"{named} holds {len(keys)} public keys, {len(found)} of kind Ed25519. {fix}")
    return found


def _message(name: str, digest: str) -> bytes:
    return json.dumps(["fivefold model", name, digest]).encode()


def _signed(name: str, tags: Mapping[str, str], keys: Any) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        signature = base64.b64decode(tags.get(SIGNATURE, ""), validate=True)
    except (binascii.Error, ValueError):
        return False
    for key in keys:
        try:
            key.verify(signature, _message(name, tags.get(DIGEST, "")))
            return True
        except InvalidSignature:
            continue
    return False
