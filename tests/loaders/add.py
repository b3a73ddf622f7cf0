"""Adds the digests of the present loader to the list that the package ships; `make loaders`."""

from __future__ import annotations

from lotto_mlflow.signing import loaders

if __name__ == "__main__":
    loaders.LIST_PATH.write_text(loaders.with_present(), encoding="utf-8")
