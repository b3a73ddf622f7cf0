"""Operations of the libraries that people use for the same work, as their documentation has it."""

from __future__ import annotations

import os
from typing import Any

from bench.operations import METADATA, Operation, Setup


def _pins(setup: Setup) -> Any:
    import pins

    setup.folder.mkdir(parents=True, exist_ok=True)
    return pins.board_folder(str(setup.folder), versioned=True, allow_pickle_read=True)


def pins_save(setup: Setup) -> Operation:
    board, model = _pins(setup), setup.model()
    return Operation(lambda: board.pin_write(model, "model", type="joblib", metadata=METADATA))


def pins_load(setup: Setup) -> Operation:
    board = _pins(setup)
    return Operation(lambda: board.pin_read("model"))


def _modelstore(setup: Setup) -> Any:
    from modelstore import ModelStore

    setup.folder.mkdir(parents=True, exist_ok=True)
    return ModelStore.from_file_system(root_directory=str(setup.folder), create_directory=True)


def modelstore_save(setup: Setup) -> Operation:
    store, model = _modelstore(setup), setup.model()
    os.chdir(setup.folder)  # it makes its archive in the current folder first
    return Operation(lambda: store.upload("lotto", model=model, extra_metadata=METADATA))


def modelstore_load(setup: Setup) -> Operation:
    store = _modelstore(setup)

    def run() -> Any:
        newest = store.list_models("lotto")[0]
        return store.load("lotto", newest)

    return Operation(run)


def skops_save(setup: Setup) -> Operation:
    import skops.io

    model = setup.model()
    return Operation(lambda: skops.io.dump(model, setup.new_path(".skops")))


def skops_load(setup: Setup) -> Operation:
    import skops.io

    path = max(setup.folder.glob("*.skops"), key=lambda found: found.stat().st_mtime_ns)
    trusted = skops.io.get_untrusted_types(file=path)
    return Operation(lambda: skops.io.load(path, trusted=trusted))


def _bentoml(setup: Setup) -> Any:
    os.environ["BENTOML_HOME"] = str(setup.folder)
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    import bentoml

    return bentoml


def bentoml_save(setup: Setup) -> Operation:
    bentoml, model = _bentoml(setup), setup.model()
    return Operation(
        lambda: bentoml.sklearn.save_model("model", model, metadata={"accuracy": 0.91})
    )


def bentoml_load(setup: Setup) -> Operation:
    bentoml = _bentoml(setup)
    return Operation(lambda: bentoml.sklearn.load_model("model:latest"))
