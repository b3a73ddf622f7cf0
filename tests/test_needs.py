"""What a model needs is found in its pickle, however large it is, and what is missing is said."""

from __future__ import annotations

import copyreg
import functools
import importlib
import os
import pickle
import pickletools
import subprocess
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

import filelock
import google.protobuf.struct_pb2
import joblib
import numpy as np
import opentelemetry.context
import opentelemetry.sdk.resources
import pandas as pd
import pytest
from dateutil.relativedelta import relativedelta
from packaging.version import Version
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer, mean_squared_error
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from lotto_mlflow import ModelManager, store
from lotto_mlflow.distributions import distribution_of
from lotto_mlflow.requirements import pinned, unprovided, version_in

OWN = __name__


class Holder(BaseEstimator):
    """An estimator of this test module, with one hyperparameter."""

    def __init__(self, value: Any = None) -> None:
        self.value = value


class Plain:
    class Inside:
        pass


def scale(rows: Any) -> Any:
    return rows


@functools.lru_cache(maxsize=1)
def big_forest() -> Any:
    random = np.random.default_rng(645)
    rows = random.normal(size=(300, 4))
    return RandomForestClassifier(100, random_state=1).fit(rows, random.integers(0, 2, 300))


@functools.lru_cache(maxsize=1)
def vocabulary() -> Any:
    words = [" ".join(f"w{i}" for i in range(k, k + 200)) for k in range(0, 25_000, 200)]
    return TfidfVectorizer().fit(words)


def names_in(model: Any, directory: Path) -> dict[str, set[str]]:
    """Return what the pickle of a model names, found while it was written."""
    path = directory / "dumped.pkl"
    path.unlink(missing_ok=True)
    return {module: set(names) for module, names in store.dump(model, path).names.items()}


def needs_of(model: Any, directory: Path) -> list[str]:
    return [pin.partition("==")[0] for pin in pinned(names_in(model, directory))]


def globals_in(content: bytes) -> set[tuple[str, str]]:
    """Return what a pickle names, as Python itself reads it."""
    texts: list[Any] = []
    memo: list[Any] = []
    found = set()
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name == "MEMOIZE":
            memo.append(texts[-1])
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            texts.append(memo[argument])
        elif opcode.name == "STACK_GLOBAL":
            found.add((texts[-2], texts[-1]))
            texts.append(None)
        elif opcode.name != "FRAME":
            texts.append(argument if isinstance(argument, str) else None)
    return found


def test_the_requirements_of_a_forest_are_pinned_sorted_and_unique(
    forest: Any, tmp_path: Path
) -> None:
    pins = pinned(names_in(forest, tmp_path))
    names = [pin.partition("==")[0] for pin in pins]
    assert names == ["joblib", "mlflow", "numpy", "scikit-learn", "scipy"]
    assert pins == [f"{name}=={version(name)}" for name in names]
    assert version_in(pins, "scikit-learn") == version("scikit-learn")
    assert version_in(pins, "torch") is None


def test_a_class_of_a_test_module_brings_neither_pytest_nor_a_stranger(
    forest: Any, tmp_path: Path
) -> None:
    needed = needs_of({"own": Holder(Plain()), "forest": forest}, tmp_path)
    assert needed == ["joblib", "mlflow", "numpy", "scikit-learn", "scipy"]


def test_the_distribution_of_a_class_inside_a_container_is_required(tmp_path: Path) -> None:
    model = {"a": [(Version("1.0"), {"b": filelock.FileLock})], "c": relativedelta(days=1)}
    found = needs_of(model, tmp_path)
    assert found == ["filelock", "joblib", "mlflow", "packaging", "python-dateutil"]


@pytest.mark.parametrize(
    "model",
    [
        functools.partial(Version, "1.0"),
        functools.partial(scale, rows=Version("1.0")),
        FunctionTransformer(Version),
        FunctionTransformer(functools.partial(Version)),
        Pipeline([("f", FunctionTransformer(scale, kw_args={"version": Version("1.0")}))]),
        Version("1.0").__lt__,
    ],
    ids=["partial", "argument", "transformer", "partial inside", "keyword", "bound method"],
)
def test_the_functions_a_model_is_made_of_are_followed(model: Any, tmp_path: Path) -> None:
    assert "packaging" in needs_of(model, tmp_path)


LARGE = {
    "forests": lambda: [big_forest()] + [_copied(big_forest()) for _ in range(59)],
    "vocabulary": vocabulary,
    "vocabulary of numpy": lambda: {f"w{n}": np.int64(n) for n in range(25_000)},
    "steps": lambda: [Holder(n) for n in range(25_000)],
    "boosting": lambda: HistGradientBoostingClassifier(max_iter=60).fit(*_table()),
    "older boosting": lambda: GradientBoostingClassifier(n_estimators=300).fit(*_table()),
    "numbers": lambda: [float(number) for number in range(200_000)],
    "long text": lambda: ["가" * 100_000, "b" * 65_536, "c" * 65_535],
    "long bytes": lambda: [b"\x95" * 70_000, bytearray(b"\x93" * 70_000), 1 << 800_000],
    "array like a frame": lambda: np.frombuffer(b"\x95" + bytes([9] + [0] * 7), np.uint8),
    "array like a pickle": lambda: np.frombuffer(b"\x80\x05\x95" + bytes(200_000), np.uint8),
    "array of objects": lambda: np.array(["x" * 70_000, None, b"y" * 70_000, 1.5], dtype=object),
    "empty arrays": lambda: [np.zeros(0), np.zeros((0, 3), dtype=object), np.zeros(())],
    "matrix": lambda: np.ones((3, 3)).view(np.matrix),
    "shared": lambda: [(part := ["numpy", OWN, "packaging.version"]), part, dict.fromkeys(part)],
}


def _copied(forest: Any) -> Any:
    import copy

    return copy.deepcopy(forest)


def _table() -> tuple[Any, Any]:
    random = np.random.default_rng(645)
    rows = random.normal(size=(2_000, 6))
    return rows, (rows[:, 0] + random.normal(size=2_000) > 0).astype(int)


@pytest.mark.parametrize("kind", LARGE)
def test_a_small_part_after_a_large_one_is_found(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = {"large": LARGE[kind](), "small": [Version("1.0"), {"own": Plain.Inside()}]}
    names = names_in(model, tmp_path)
    assert names["packaging.version"] >= {"Version"}
    assert names[OWN] >= {"Plain.Inside"}
    assert not caplog.records
    loaded = joblib.load(tmp_path / "dumped.pkl")
    assert loaded["small"][0] == Version("1.0")


@pytest.mark.parametrize("kind", LARGE)
def test_a_small_part_before_a_large_one_is_found(kind: str, tmp_path: Path) -> None:
    names = names_in([Version("1.0"), Plain(), LARGE[kind]()], tmp_path)
    assert names["packaging.version"] >= {"Version"}
    assert names[OWN] >= {"Plain"}


@pytest.mark.parametrize("kind", LARGE)
def test_a_small_part_between_large_ones_is_found(kind: str, tmp_path: Path) -> None:
    large = LARGE[kind]()
    names = names_in([large, Version("1.0"), np.array([Plain(), large], dtype=object)], tmp_path)
    assert names["packaging.version"] >= {"Version"}
    assert names[OWN] >= {"Plain"}


def _catboost() -> Any:
    return importlib.import_module("catboost").CatBoostClassifier(
        iterations=3, verbose=0, allow_writing_files=False
    )


def _statsmodels() -> Any:
    api = importlib.import_module("statsmodels.api")
    rows, classes = _table()
    return api.OLS(classes, rows).fit()


def _imblearn() -> Any:
    pipeline = importlib.import_module("imblearn.pipeline")
    sampling = importlib.import_module("imblearn.over_sampling")
    return pipeline.make_pipeline(sampling.SMOTE(), LogisticRegression()).fit(*_table())


def _encoded() -> Any:
    encoders = importlib.import_module("category_encoders")
    frame = pd.DataFrame({"a": ["x", "y"] * 50, "b": range(100)})
    return encoders.TargetEncoder(cols=["a"]).fit(frame, [0, 1] * 50)


def _searched() -> Any:
    scorer = make_scorer(mean_squared_error)
    search = GridSearchCV(LogisticRegression(), [{"C": [0.1, 1]}], cv=2, scoring=scorer)
    return search.fit(*_table())


DIVERSE = {
    "catboost": lambda: _catboost().fit(*_table()),
    "lightgbm": lambda: (
        importlib.import_module("lightgbm")
        .LGBMClassifier(n_estimators=3, verbose=-1)
        .fit(*_table())
    ),
    "xgboost": lambda: (
        importlib.import_module("xgboost").XGBClassifier(n_estimators=3).fit(*_table())
    ),
    "statsmodels": _statsmodels,
    "imblearn": _imblearn,
    "category encoders": _encoded,
    "search": _searched,
    "svm": lambda: SVC(probability=False).fit(*_table()),
    "neighbours": lambda: KNeighborsClassifier(algorithm="kd_tree").fit(*_table()),
    "network": lambda: MLPClassifier((4,), max_iter=3).fit(*_table()),
    "process": lambda: GaussianProcessClassifier().fit(*(part[:50] for part in _table())),
    "calibrated": lambda: CalibratedClassifierCV(LogisticRegression(), cv=2).fit(*_table()),
    "voting": lambda: VotingClassifier(
        [("a", LogisticRegression()), ("b", RandomForestClassifier(5))]
    ).fit(*_table()),
    "outputs": lambda: MultiOutputClassifier(LogisticRegression()).fit(
        _table()[0], np.column_stack([_table()[1]] * 2)
    ),
    "columns": lambda: make_pipeline(
        ColumnTransformer([("s", StandardScaler(), [0]), ("o", OneHotEncoder(), [1])])
    ).fit(np.round(_table()[0])),
    "boosting": lambda: HistGradientBoostingClassifier(max_iter=5).fit(*_table()),
    "older boosting": lambda: GradientBoostingClassifier(n_estimators=30).fit(*_table()),
    "frame": lambda: pd.DataFrame(
        {"a": [1, 2], "b": pd.Categorical(["x", "y"]), "c": pd.to_datetime(["2025", "2026"])}
    ),
    "containers": lambda: OrderedDict(a=defaultdict(list, b=[frozenset({1}), slice(1), range(3)])),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", DIVERSE)
def test_every_global_of_a_plain_pickle_is_found(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = DIVERSE[kind]()
    expected = globals_in(pickle.dumps(model, protocol=pickle.DEFAULT_PROTOCOL))
    caplog.clear()
    found = names_in(model, tmp_path)
    missed = {module for module, _ in expected} - found.keys()
    # joblib writes arrays in a form of its own
    assert missed <= {"numpy._core.multiarray", "numpy._core.numeric", "numpy.core.multiarray"}
    assert all(module in sys.modules for module in found)
    assert not caplog.records
    assert not unprovided(found)


def _any_value(random: Random, depth: int = 0) -> Any:
    leaves = [
        lambda: random.random(),
        lambda: random.randrange(10 ** random.randrange(1, 30)),
        lambda: "".join(random.choices("a.b\x93\x94h가", k=random.randrange(300))),
        lambda: bytes(random.choices(range(256), k=random.randrange(300))),
        lambda: random.choice([OWN, "packaging.version", "builtins", "numpy", "__main__"]),
        lambda: random.choice(["x" * 70_000, b"y" * 70_000, None, Plain()]),
        lambda: random.choice([Version("1.0"), relativedelta(days=1), Path("a"), scale]),
        lambda: np.array(random.choices(range(256), k=random.randrange(20)), np.uint8),
    ]
    holders = [
        lambda: [_any_value(random, depth + 1) for _ in range(random.randrange(12))],
        lambda: {str(i): _any_value(random, depth + 1) for i in range(random.randrange(12))},
        lambda: tuple(_any_value(random, depth + 1) for _ in range(random.randrange(5))),
        lambda: np.array([_any_value(random, depth + 1), None], dtype=object),
    ]
    return random.choice(leaves + holders if depth < 4 else leaves)()


@pytest.mark.parametrize("seed", range(60))
def test_any_object_is_read_as_python_reads_it(
    seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    random = Random(seed)
    model = [_any_value(random) for _ in range(random.choice([1, 5, 60]))]
    expected = globals_in(pickle.dumps(model, protocol=pickle.DEFAULT_PROTOCOL))
    missed = {module for module, _ in expected} - names_in(model, tmp_path).keys()
    assert missed <= {"numpy._core.multiarray", "numpy._core.numeric", "numpy.core.multiarray"}
    assert not caplog.records


@pytest.fixture
def extension() -> Iterator[int]:
    """Give a class of this module a number in place of its name."""
    copyreg.add_extension(OWN, "Plain", 645)  # type: ignore[arg-type]
    yield 645
    copyreg.remove_extension(OWN, "Plain", 645)  # type: ignore[arg-type]
    copyreg.clear_extension_cache()


@pytest.mark.usefixtures("extension")
@pytest.mark.parametrize("is_known", [False, True])
def test_a_class_that_a_pickle_names_by_a_number_is_found(tmp_path: Path, is_known: bool) -> None:
    if is_known:
        pickle.loads(pickle.dumps(Plain()))
    names = names_in([vocabulary(), Plain(), np.array([Plain()], dtype=object)], tmp_path)
    assert names[OWN] == {"Plain"}


def test_what_a_pickle_inside_bytes_names_is_not_taken_for_the_model_s(tmp_path: Path) -> None:
    names = names_in({"state": pickle.dumps(Version("1.0")), "own": Plain()}, tmp_path)
    assert names == {OWN: {"Plain"}}


def test_a_module_whose_name_is_first_a_value_is_found(tmp_path: Path) -> None:
    name = Version.__module__
    for filler in ([], list(map(str, range(70_000))), [np.zeros(3)]):
        names = names_in([name, {"module": name}, filler, Version("1.0")], tmp_path)
        assert "Version" in names["packaging.version"]


class _Late:
    """A part whose module is imported while it is pickled."""

    def __reduce__(self) -> Any:
        return importlib.import_module("wave_of_lotto").build, ()


def test_a_module_that_is_imported_while_the_model_is_written_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wave_of_lotto.py").write_text("def build(): return 1\ndef other(): return 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        names = names_in([_Late(), vocabulary(), _Late()], tmp_path)
        assert names["wave_of_lotto"] == {"build"}
        assert unprovided(names) == ["wave_of_lotto"]
    finally:
        sys.modules.pop("wave_of_lotto", None)


def test_a_pickle_of_an_unknown_form_is_warned_of_once_and_saved(
    disk_manager: ModelManager,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    forest: Any,
) -> None:
    monkeypatch.setattr(pickle, "DEFAULT_PROTOCOL", 3)  # without frames
    path = disk_manager.save_model({"forest": forest, "v": Version("1.0")}, "old form", {"a": 1})
    assert disk_manager.load_model(path)["v"] == Version("1.0")
    warned = [r.getMessage() for r in caplog.records if "not all classes" in r.getMessage()]
    assert len(warned) == 1
    assert "dict" in warned[0]


@pytest.mark.parametrize(
    ("module", "distribution"),
    [
        ("google.protobuf.struct_pb2", "protobuf"),
        ("opentelemetry.context", "opentelemetry-api"),
        ("opentelemetry.sdk.resources", "opentelemetry-sdk"),
        ("sklearn._loss._loss", "scikit-learn"),
        ("dateutil.relativedelta", "python-dateutil"),
        ("imblearn.pipeline", "imbalanced-learn"),
        ("xgboost.sklearn", "xgboost-cpu"),
        ("numpy._core.multiarray", "numpy"),
        ("json.decoder", None),
        ("__mp_main__", None),
        (OWN, None),
    ],
)
def test_the_distribution_of_a_module_is_found(module: str, distribution: str | None) -> None:
    if module != "__mp_main__":
        importlib.import_module(module)
    found = distribution_of(module)
    assert found == distribution


def test_the_parts_of_a_shared_package_are_pinned_by_their_own_distribution(
    tmp_path: Path,
) -> None:
    assert google.protobuf.struct_pb2.__name__ == "google.protobuf.struct_pb2"
    model = [opentelemetry.sdk.resources.Resource, opentelemetry.context.Context]
    needed = needs_of(model, tmp_path)
    assert [name for name in needed if name.startswith("opentelemetry")] == [
        "opentelemetry-api",
        "opentelemetry-sdk",
    ]


def _installed(site_dir: Path, name: str, files: dict[str, str], origin: str | None = None) -> None:
    """Lay out a distribution as an installer does."""
    info_dir = site_dir / f"{name.replace('-', '_')}-1.5.dist-info"
    info_dir.mkdir(parents=True)
    (info_dir / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    for file, text in files.items():
        (site_dir / file).parent.mkdir(parents=True, exist_ok=True)
        (site_dir / file).write_text(text)
    listed = [*files, f"{info_dir.name}/METADATA", f"{info_dir.name}/RECORD"]
    (info_dir / "RECORD").write_text("".join(f"{file},,\n" for file in listed))
    if origin is not None:
        (info_dir / "direct_url.json").write_text(origin)


@pytest.fixture
def site_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that packages are installed in; what the test imports is forgotten again."""
    found = tmp_path / "site"
    found.mkdir()
    monkeypatch.syspath_prepend(str(found))
    before = set(sys.modules)
    yield found
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_namespace_and_editable_and_own_modules_are_told_apart(
    site_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = "class Part: pass\n"
    _installed(site_dir, "shop-red", {"shopns/red.py": part})
    _installed(site_dir, "shop-blue", {"shopns/blue/__init__.py": part})
    _installed(site_dir, "shopns", {"other_of_shop.py": part})  # which only has that name
    _installed(site_dir, "sloppy", {"helpers_of_lotto.py": part, "sloppy.py": part})
    source_dir = tmp_path / "checkout" / "src"
    (source_dir / "drawing").mkdir(parents=True)
    (source_dir / "drawing" / "__init__.py").write_text(part)
    origin = f'{{"url": "{source_dir.parent.as_uri()}", "dir_info": {{"editable": true}}}}'
    _installed(site_dir, "lotto-drawing", {"_lotto_drawing.pth": f"{source_dir}\n"}, origin)
    own_dir = tmp_path / "own"
    own_dir.mkdir()
    (own_dir / "helpers_of_lotto.py").write_text(part)
    monkeypatch.syspath_prepend(str(source_dir))
    monkeypatch.syspath_prepend(str(own_dir))
    modules = ["shopns.red", "shopns.blue", "other_of_shop", "drawing", "helpers_of_lotto"]
    model = [importlib.import_module(module).Part() for module in modules]
    names = names_in(model, tmp_path)
    assert pinned(names)[1:] == [
        "lotto-drawing==1.5",
        f"mlflow=={version('mlflow')}",
        "shop-blue==1.5",
        "shop-red==1.5",
        "shopns==1.5",
    ]
    assert unprovided(names) == ["helpers_of_lotto"]


def test_a_distribution_installed_meanwhile_is_found(site_dir: Path) -> None:
    (site_dir / "oddly_named.py").write_text("class Part: pass\n")
    importlib.import_module("oddly_named")
    assert distribution_of("oddly_named") is None
    _installed(site_dir, "well-named", {"oddly_named.py": "class Part: pass\n"})
    assert distribution_of("oddly_named") == "well-named"


def test_a_file_beside_the_script_has_nothing_looked_up_again(
    site_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One with an own installation beside it, as in a checkout, too."""
    own_dir = tmp_path / "own"
    own_dir.mkdir()
    (own_dir / "checkout.egg-info").mkdir()
    (own_dir / "part_of_lotto.py").write_text("class Part: pass\n")
    monkeypatch.syspath_prepend(str(own_dir))
    importlib.import_module("part_of_lotto")
    looked_up: list[None] = []

    def counted(*arguments: Any, **named: Any) -> Any:
        looked_up.append(None)
        return find(*arguments, **named)

    find = importlib.metadata.distributions
    monkeypatch.setattr(importlib.metadata, "distributions", counted)
    assert distribution_of("part_of_lotto") is None
    at_first = len(looked_up)
    for number in range(3):
        (own_dir / f"{number}.csv").write_text("1")
        os.utime(own_dir, ns=(number, number))
        assert unprovided({"part_of_lotto": {"Part"}}) == ["part_of_lotto"]
    assert len(looked_up) == at_first > 0
    _installed(site_dir, "lotto-part", {"part_of_lotto.py": "class Part: pass\n"})
    assert distribution_of("part_of_lotto") is None  # which is not the file that was imported
    assert len(looked_up) > at_first


def test_a_save_looks_at_the_installations_once(
    disk_manager: ModelManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lotto_mlflow import distributions

    stamps: list[None] = []
    stamp = vars(distributions)["_stamp"]
    monkeypatch.setattr(distributions, "_stamp", lambda: (stamps.append(None), stamp())[1])
    disk_manager.save_model([Path(), Random(1)], "x", {"n": 1})
    assert len(stamps) == 1


def test_a_broken_distribution_hides_no_other(site_dir: Path) -> None:
    (site_dir / "broken-1.dist-info").mkdir()
    (site_dir / "worse-1.dist-info").mkdir()
    (site_dir / "worse-1.dist-info" / "METADATA").write_bytes(b"\xff\xfe")
    (site_dir / "worse-1.dist-info" / "direct_url.json").write_text("[]")
    _installed(site_dir, "well-named", {"oddly_named.py": "class Part: pass\n"})
    importlib.import_module("oddly_named")
    assert distribution_of("oddly_named") == "well-named"


def test_modules_that_no_distribution_provides_are_named_in_one_warning(
    disk_manager: ModelManager, caplog: pytest.LogCaptureFixture
) -> None:
    disk_manager.save_model([Plain(), Version("1.0")], "x", {"a": 1})
    (warned,) = [r.getMessage() for r in caplog.records]
    assert f"list needs {OWN}, which no installed distribution provides" in warned


def test_a_class_of_the_main_script_is_warned_of(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import logging\n"
        "logging.basicConfig(format='%(levelname)s %(message)s')\n"
        "from lotto_mlflow import ModelManager\n"
        "class Model: pass\n"
        "class Part: pass\n"
        "model = ['Part', Model(), {'Part': Part()}]\n"
        f"ModelManager({str(tmp_path / 'ml')!r}, mirror='off').save_model(model, 'm', {{}})\n"
    )
    answer = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True
    )
    said = "WARNING list uses a class or function defined in __main__ (Model, Part)"
    assert said in answer.stderr
    assert "no installed distribution" not in answer.stderr
