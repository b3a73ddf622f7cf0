"""The machine and the versions a run was made with: enough to compare, nothing to find it by."""

from __future__ import annotations

import os
import platform
import shutil
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("lotto-mlflow", "mlflow", "joblib", "scikit-learn", "numpy", "filelock", "SQLAlchemy")


def described(folder: Path) -> dict[str, Any]:
    """Return what matters of the machine, and the file system that a folder lies on."""
    return {
        "cpus": os.cpu_count(),
        "cpu": _value_in(Path("/proc/cpuinfo"), "model name") or platform.processor(),
        "memory": _value_in(Path("/proc/meminfo"), "MemTotal"),
        "system": f"{platform.system()} {platform.machine()}",
        "file_system": _file_system(folder),
        "python": platform.python_version(),
        "versions": versions(_PACKAGES),
        "calls_counted_by": "strace" if shutil.which("strace") else None,
        "bytes_counted_by": "/proc/self/io" if Path("/proc/self/io").exists() else None,
    }


def versions(names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _value_in(path: Path, key: str) -> str | None:
    with suppress(OSError):
        for line in path.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return None


def _file_system(folder: Path) -> str | None:
    """Return the kind of the mount that holds a folder: the longest that is above it."""
    resolved, found = str(folder.resolve()), ("", None)
    with suppress(OSError):
        for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
            _, mount, kind, *_ = line.split()
            is_above = resolved == mount or resolved.startswith(f"{mount.rstrip('/')}/")
            if is_above and len(mount) > len(found[0]):
                found = (mount, kind)
    return found[1]
