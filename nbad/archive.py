"""Archives: a JSON header and typed arrays of one dimension in an .npz file without compression.

Owns the writing, and the reading of bytes that may be damaged or hostile: sizes are checked before memory is taken. Must not
unpickle or evaluate what a file says.
"""

from __future__ import annotations

import io
import json
import math
import re
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from nbad.errors import TapeError

__all__ = ["read", "require", "take", "write"]

_NPY = re.compile(
    rb"\x93NUMPY\x01\x00(..)\{'descr': '([<|][a-z][0-9]{1,2})', 'fortran_order': False, "
    rb"'shape': \(([0-9]{1,18}),\), \} *\n",
    re.DOTALL,
)

Array = np.ndarray[Any, Any]


def write(header: dict[str, Any], arrays: Mapping[str, Array]) -> bytes:
    """Return the bytes of an archive, the same for the same content.

    Raises
    ------
    TapeError
        JSON has no place for something in the header.
    """
    try:
        text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise TapeError(f"the description of a tape does not fit into JSON: {error}") from None
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as file:
        for name, values in {"header": np.frombuffer(text, np.uint8), **arrays}.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, values, version=(1, 0), allow_pickle=False)
            file.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue())
    return out.getvalue()


def read(content: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the header of an archive, and the other members for `take`.

    Raises
    ------
    TapeError
        Sizes or the header are wrong; damaged bytes also raise what `zipfile` and `json` do.
    """
    members = _members(content)
    return _header(take(members, "header", "|u1").tobytes()), members


def require(fact: bool, problem: str) -> None:
    """Raise TapeError if something that must be true of a file is not."""
    if not fact:
        raise TapeError(f"the saved tape is damaged: {problem}")


def _members(content: bytes) -> dict[str, bytes]:
    """Return the members of an archive; sizes are checked before anything is read."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        listed = file.infolist()
        # Members that are stored as they are cannot be larger than the file, unless they overlap.
        plain = all(m.compress_type == zipfile.ZIP_STORED and m.file_size == m.compress_size for m in listed)
        require(plain, "a member of the archive is compressed")
        require(sum(m.file_size for m in listed) <= len(content), "the members are larger than the file")
        names = [m.filename for m in listed]
        require(len(set(names)) == len(names), "the archive has two members of one name")
        return {m.filename: file.read(m) for m in listed}


def take(members: dict[str, bytes], name: str, dtype: str) -> Array:
    """Return a member, which must be a one-dimensional array of this dtype, and take it out."""
    content = members.pop(f"{name}.npy", None)
    if content is None:
        raise TapeError(f"the saved tape is damaged: the array {name} is missing")
    match = _NPY.match(content[:256])
    if match is None or match[2].decode() != dtype:
        raise TapeError(f"the saved tape is damaged: {name} is no array of dtype {dtype}")
    size = struct.unpack("<H", match[1])[0] + 10
    fits = size == match.end() and len(content) - size == int(match[3]) * np.dtype(dtype).itemsize
    require(fits, f"the array {name} is of another size than it says")
    return np.frombuffer(content, dtype, offset=size).astype(np.dtype(dtype).newbyteorder("="), copy=False)


def _header(text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        require(len(found) == len(pairs), "a key stands twice in the header")
        return found

    def finite(number: str) -> float:
        value = float(number)
        require(math.isfinite(value), "a number in the header is not finite")
        return value

    header = json.loads(text.decode(), object_pairs_hook=unique, parse_constant=finite, parse_float=finite)
    if not isinstance(header, dict):
        raise TapeError("this file is no saved tape")
    return header
