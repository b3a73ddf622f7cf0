"""What the tests measured, left in a folder as JSON for `report`."""

from __future__ import annotations

import json
import os
from pathlib import Path

FOLDER_VARIABLE = "LOTTO_SERVER_FIGURES"


class Figures:
    """Keeps figures: ``figures("100 MB saved through the server", "0.41 GB/s")``."""

    def __call__(self, what: str, figure: str, *, section: str = "measured") -> None:
        print(f"{what}: {figure}")
        folder = os.environ.get(FOLDER_VARIABLE) or _FOLDER
        if folder:
            name = "".join(c if c.isalnum() else "-" for c in f"{section}-{what}")[:120]
            content = {"section": section, "what": what, "figure": figure}
            path = Path(folder) / f"{name}.json"
            path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


# kept when this is imported: each test's environment is cleared of the package's settings
_FOLDER = os.environ.get(FOLDER_VARIABLE)
