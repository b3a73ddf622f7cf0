"""Where MLflow keeps artifacts, as paths of this machine."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname


def local_path(uri: str) -> Path | None:
    """Return the folder that an artifact URI means on this machine, ``None`` for a remote one."""
    if not uri:
        return None
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(url2pathname(parts.path))
    is_plain = not parts.scheme or len(parts.scheme) == 1  # one letter is a drive of Windows
    return Path(uri) if is_plain else None
