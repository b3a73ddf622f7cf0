"""``python -m lotto_mlflow``: the command line."""

import sys
from contextlib import suppress
from pathlib import Path

if __name__ == "__main__":
    # Python put the current folder first, to find this package: nothing else is to come from there
    with suppress(OSError):
        if not getattr(sys.flags, "safe_path", False) and sys.path[0] in ("", str(Path.cwd())):
            del sys.path[0]

    from lotto_mlflow.cli import main

    main()
