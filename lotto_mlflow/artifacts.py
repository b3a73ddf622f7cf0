"""The caller's extra artifacts: checked and rendered in memory first, written afterwards."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import category

from lotto_mlflow.errors import InvalidArtifactError, InvalidMetadataError
from lotto_mlflow.files import copy_content
from lotto_mlflow.layout import MAX_NAME_BYTES, METADATA_SUFFIX
from lotto_mlflow.metadata import plain, strict, to_json
from lotto_mlflow.regular import real_path

_FORBIDDEN = frozenset('<>:"|?*%#\\')


def rendered(artifacts: Mapping[str, Any]) -> dict[str, bytes | Path]:
    """Return the content of each artifact, or the file to copy it from.

    Parameters
    ----------
    artifacts : mapping of str to object
        A ``Path`` is a file, a ``str`` text, a dict JSON, a matplotlib figure a PNG. A name
        without the ending of its kind gets it (``.txt``, ``.json``, ``.png``); slashes make
        folders.

    Raises
    ------
    InvalidArtifactError
        If a name or a value cannot be written. Nothing has been touched.
    """
    if not isinstance(artifacts, Mapping):
        raise _refused("artifacts", f"is {type(artifacts).__name__}, not a dict of name to value")
    contents: dict[str, bytes | Path] = {}
    for given, value in artifacts.items():
        name, content = _rendered(given, value)
        if name in contents:
            raise _refused(given, f"would be written to {name}, as another one is")
        contents[name] = content
    folders = {str(folder) for name in contents for folder in PurePosixPath(name).parents}
    for name in contents.keys() & folders:
        raise _refused(name, "is a file and a folder at once")
    return contents


def _rendered(name: Any, value: Any) -> tuple[str, bytes | Path]:
    _check_name(name)
    if isinstance(value, Path):
        if not value.is_file() or not os.access(value, os.R_OK):
            raise _refused(name, f"is {value}, which is no file that can be read")
        return name, value
    if isinstance(value, str):
        try:
            return _named(name, ".txt", any_ending=True), value.encode("utf-8")
        except UnicodeEncodeError as cause:
            raise _refused(name, "holds characters that UTF-8 cannot write") from cause
    if isinstance(value, Mapping):
        try:
            return _named(name, ".json", any_ending=True), to_json(strict(plain(value)))
        except InvalidMetadataError as cause:
            raise _refused(name, f"is no JSON: {cause}") from cause
    if callable(getattr(value, "savefig", None)):
        return _named(name, ".png", any_ending=False), _png(name, value)
    raise _refused(
        name, f"is {type(value).__name__}; give a Path, text, a dict or a matplotlib figure"
    )


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name:
        raise _refused(name, "is not a name: give a non-empty str")
    path = PurePosixPath(name)
    is_plain = str(path) == name and path.parts and not path.is_absolute()
    has_bad_character = any(c in _FORBIDDEN or category(c) in ("Cc", "Cs") for c in name)
    if not is_plain or ".." in path.parts or has_bad_character:
        raise _refused(name, "is not a plain relative path")
    if len(path.parts) == 1 and name.endswith(METADATA_SUFFIX):
        raise _refused(name, f"ends with {METADATA_SUFFIX}, which names the metadata of the save")
    if max(len(part.encode("utf-8")) for part in path.parts) > MAX_NAME_BYTES:
        raise _refused(name, "is too long for a file name")


def _named(name: str, ending: str, *, any_ending: bool) -> str:
    suffix = PurePosixPath(name).suffix
    return name if suffix.lower() == ending or (any_ending and suffix) else f"{name}{ending}"


def _png(name: str, figure: Any) -> bytes:
    buffer = io.BytesIO()
    try:
        figure.savefig(buffer, format="png")
    except Exception as cause:
        raise _refused(name, f"could not be drawn: {type(cause).__name__}: {cause}") from cause
    return buffer.getvalue()


def _refused(name: Any, problem: str) -> InvalidArtifactError:
    shown = repr(name)[:200] if isinstance(name, str) else f"named by {type(name).__name__}"
    return InvalidArtifactError(f"artifact {shown} {problem}; nothing was saved", name=name)


def write(contents: Mapping[str, bytes | Path], directory: Path) -> None:
    """Write rendered artifacts into a new folder."""
    for name, content in contents.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            copy_content(real_path(content), path)  # the caller's links are meant
        else:
            path.write_bytes(content)
