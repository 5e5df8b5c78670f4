"""Files that appear under their final name only when they are complete."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: Bytes; no sidecar, table or file of settings is larger.
LARGEST_TEXT = 256 * 2**20


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` when the block ends well.

    The temporary name keeps all suffixes, since image writers choose the format by them. When the
    block raises, the temporary file is removed and whatever stood under `path` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tmp-", suffix="-" + path.name, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; results get the permissions any new file would have.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> Path:
    """Write UTF-8 text atomically and return the path."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: str | os.PathLike, content: dict) -> Path:
    """Write a JSON object atomically, indented by two spaces; NaN is refused."""
    return write_text(
        path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )


def read_text(path: str | os.PathLike) -> str:
    """UTF-8 text of a file, without a byte-order mark.

    Raises
    ------
    OSError
        When it cannot be read, is no regular file (a pipe or a device might never end), or is far
        too large.
    ValueError
        When it is not UTF-8.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is no file but a folder, pipe or device")
    if found.st_size > LARGEST_TEXT:
        raise OSError(f"it has {found.st_size} bytes, which is too much for a text")
    return Path(path).read_text(encoding="utf-8-sig")


def read_json(path: str | os.PathLike) -> Any:
    """Content of a JSON file.

    Raises
    ------
    OSError, ValueError
        As :func:`read_text`; and a ValueError for what is no JSON, is nested without end, has a key
        twice with different values, or holds characters that do not exist.
    """
    try:
        content = json.loads(read_text(path), object_pairs_hook=_unambiguous)
        # Half a character may be spelled in JSON, but not written into any file.
        json.dumps(content, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return content


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    for key, value in pairs if len(content) < len(pairs) else ():
        if repr(content[key]) != repr(value):
            raise ValueError(f"the key {key!r} is there twice, with different values")
    return content
