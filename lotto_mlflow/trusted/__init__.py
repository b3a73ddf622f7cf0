"""What a trusted key signed: checked of bytes before they are unpickled, restored or sent.

Records, tags, names of files, and whatever else others can write, only say where to look. What
counts is one statement that a trusted key signed; with it the bytes agree, and the name, the
registered model, the metadata and the requirements, all of one save.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lotto_mlflow import layout as names
from lotto_mlflow import metadata as metadata_json
from lotto_mlflow import private_dirs, regular
from lotto_mlflow.errors import Fix, LottoMlflowError, SignatureError, StoreError
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.history import History
from lotto_mlflow.model_dir import REQUIREMENTS_FILE
from lotto_mlflow.model_file import ModelFile
from lotto_mlflow.records import ModelRecord, SaveRecord
from lotto_mlflow.settings import Target
from lotto_mlflow.signing import Pair, Statement, TrustedKeys
from lotto_mlflow.signing.signatures import verified
from lotto_mlflow.store.signatures import pairs_in, read_pair
from lotto_mlflow.text import composed
from lotto_mlflow.trusted.wanted import (
    UNCHECKED,
    Wanted,
    content_of,
    digests_of_requirements,
    is_true,
    refused,
    wanted_of_record,
    with_fix,
)

if TYPE_CHECKING:
    from lotto_mlflow.mirror import Beside

__all__ = [
    "UNCHECKED",
    "Signed",
    "Trusted",
    "Wanted",
    "digests_of_requirements",
    "forget",
    "is_true",
    "of_folder",
    "refused",
    "wanted_of_record",
    "with_fix",
]

_REQUIREMENTS_BYTES = 1 << 20
_MOST_REMEMBERED = 256


class Signed(NamedTuple):
    """What a trusted key signed.

    Attributes
    ----------
    statement : Statement
        What it says.
    pair : tuple of bytes
        The same as it was signed, and its signature.
    """

    statement: Statement
    pair: Pair


def of_folder(folder: ModelFolder) -> Trusted | None:
    """Return what checks a folder, ``None`` where the settings do not ask for signatures."""
    current = folder.settings()
    if current.trust != "signed" or current.trusted_keys is None:
        return None
    return Trusted(folder, current.trusted_keys)


class Trusted:
    """The keys that are trusted, and what they signed in one folder and its stores.

    Parameters
    ----------
    folder : ModelFolder
        The folder.
    keys_path : pathlib.Path
        The file or folder of the keys.

    Notes
    -----
    It serves one operation: a key that is removed is not trusted any more in the next.
    """

    def __init__(self, folder: ModelFolder, keys_path: Path) -> None:
        self._folder = folder
        self._layout = folder.layout
        self._keys_path = keys_path
        self._statements: dict[Pair, Statement] = {}

    @cached_property
    def keys(self) -> TrustedKeys:
        """The keys.

        Raises
        ------
        SettingsError
            If they are none, or lie in the folder.
        """
        return TrustedKeys.read(self._keys_path, *self._layout.own_dirs)

    def signed(self, pairs: Iterable[Pair], wanted: Wanted) -> Signed:
        """Return the first statement that a trusted key signed, and that says what it has to.

        Parameters
        ----------
        pairs : iterable of tuple of bytes
            Statements and their signatures, the likeliest first; nobody has checked them.
        wanted : Wanted
            What it has to say.

        Raises
        ------
        SignatureError
            If there is none. ``problem`` is ``"missing"``, ``"bad"`` or ``"unknown key"``; it
            ``is_otherwise`` where a trusted key signed something else.
        """
        keys, refusal = self.keys, None
        for pair in pairs:
            try:
                statement = self._statements.get(pair) or verified(*pair, keys, wanted.what)
            except SignatureError as cause:
                refusal = refusal or cause
                continue
            self._statements[pair] = statement
            difference = wanted.difference(statement)
            if difference is None:
                return Signed(statement, pair)
            is_of_bytes = statement.sha256 == wanted.sha256
            if refusal is None or is_of_bytes:  # of several, one of these bytes says most
                refusal = refused(wanted.what, difference, "bad", is_otherwise=True)
        raise refusal or refused(wanted.what, "it has no signature", "missing")

    def of_file(self, history: History, file: ModelFile, sha256: str | None, size: int) -> Signed:
        """Return what was signed of a file, which lies in the folder or elsewhere.

        Parameters
        ----------
        history : History
            The records, which say where to look first.
        file : ModelFile
            The file.
        sha256 : str or None
            Digest of its bytes; ``None`` where they are not looked at.
        size : int
            How many there are.

        Raises
        ------
        SignatureError
            If no trusted key signed it.
        """
        is_own = file.is_trained or file.is_backup
        is_named = is_own or file.is_download or file.model_dir is None
        wanted = Wanted(
            what=str(file.path),
            names=frozenset(file.possible_names) if is_named else None,
            sha256=sha256,
            size=size,
            metadata=_metadata_beside(file) if is_own else UNCHECKED,
        )
        if file.is_download and sha256 is not None:
            with suppress(SignatureError):
                return self.signed(self._folder.downloads.pairs_of(sha256), wanted)
        return self.of_bytes(_ids_of(history, file, sha256), wanted)

    def of_bytes(self, likely_ids: Iterable[str], wanted: Wanted) -> Signed:
        """Return what was signed of bytes that are of any save of the folder.

        Parameters
        ----------
        likely_ids : iterable of str
            The saves that they may be of, the likeliest first.
        wanted : Wanted
            What has to be signed.

        Raises
        ------
        SignatureError
            If no trusted key signed that.
        """
        return self.signed(self._pairs(likely_ids, wanted), wanted)

    def of_record(self, record: SaveRecord, wanted: Wanted | None = None) -> Signed:
        """Return what was signed of a save, with which all that its record says agrees.

        Parameters
        ----------
        record : SaveRecord
            The save.
        wanted : Wanted, optional
            What is asked for beside that, of a version that is to be loaded; then the requirements
            of the record do not matter.

        Raises
        ------
        SignatureError
            If no trusted key signed that.
        """
        pair = read_pair(self._layout, record.id)
        recorded = wanted_of_record(record)
        if wanted is not None:  # nobody installs what a record says
            recorded = replace(recorded, what=wanted.what, requirements=None)
        found = self.signed([] if pair is None else [pair], recorded)
        difference = None if wanted is None else wanted.difference(found.statement)
        if wanted is not None and difference is not None:
            raise refused(wanted.what, difference, "bad")
        return found

    def of_version(
        self,
        target: Target,
        version: ModelRecord,
        sha256: str | None = None,
        size: int | None = None,
        *,
        anew: bool = False,
    ) -> Signed:
        """Return what was signed of a version: here, or beside it where this folder knows nothing.

        Parameters
        ----------
        target : Target
            The store that has it.
        version : ModelRecord
            The version.
        sha256 : str, optional
            Digest of the bytes that are there; by default, what is said of them.
        size : int, optional
            How many there are.
        anew : bool
            Whether to look at what lies beside the version, also where that was done before, or
            this folder has the save; the bytes that were signed are compared in any case.

        Raises
        ------
        SignatureError
            If no trusted key signed it.
        MirrorUnavailableError
            If MLflow would have to be asked, and could not be.
        """
        wanted = Wanted(
            what=f"version {version.version} of {version.registered_model}",
            names=frozenset({composed(version.name)}),
            registered_model=version.registered_model,
            sha256=sha256 or version.sha256,
            size=size,
            save_id=version.save_id,
        )
        save = self._folder.history().own_save_of_version(version)
        if save is None:
            return self._of_others(target, version, wanted, anew=anew)
        found = self.of_record(save, wanted)
        if anew:
            self.of_beside(target, version, wanted)
            return found
        beside = self._beside_here(save, target)
        difference = None if beside is None else beside.difference(found.statement)
        if difference is not None:
            raise refused(f"{wanted.what} in MLflow", difference, "bad")
        return found

    def _beside_here(self, save: SaveRecord, target: Target) -> Wanted | None:
        """Return what lies in the embedded store beside a save, ``None`` where it is elsewhere."""
        ids = save.mirrored.get(target.name)
        if ids is None or not target.is_embedded:
            return None
        wanted = Wanted(what="")
        model_dir, run_dir = self._layout.model_dir(ids.model_id), self._layout.run_dir(ids.run_id)
        if regular.is_folder(model_dir):
            content = content_of(model_dir / REQUIREMENTS_FILE, _REQUIREMENTS_BYTES)
            wanted = replace(wanted, requirements=digests_of_requirements(content))
        if regular.is_folder(run_dir):
            content = content_of(
                run_dir / f"{save.name}{names.METADATA_SUFFIX}", metadata_json.MAX_BYTES
            )
            wanted = replace(wanted, metadata=content)
        return wanted

    def _of_others(
        self, target: Target, version: ModelRecord, wanted: Wanted, *, anew: bool
    ) -> Signed:
        """Return what was signed of a version that another host saved."""
        key = (target.name, version.registered_model, version.version, version.run_id)
        is_remote, kept = not target.is_embedded, list[Pair]()
        if is_remote and not anew:
            known = [_REMEMBERED[key]] if key in _REMEMBERED else []
            kept = list(self._folder.downloads.pairs_of(str(wanted.sha256)))
            with suppress(SignatureError):
                found = self.signed([*known, *kept], wanted)
                self._keep(found, kept)
                return found
        beside = self._beside(target, version)
        found = self.signed(beside.pairs, wanted.with_beside(beside))
        if is_remote and not beside.is_local:
            while len(_REMEMBERED) >= _MOST_REMEMBERED:
                _REMEMBERED.pop(next(iter(_REMEMBERED)), None)
            _REMEMBERED[key] = found.pair
            self._keep(found, kept)
        return found

    def of_beside(self, target: Target, version: ModelRecord, wanted: Wanted) -> Signed:
        """Return what was signed of a version of this folder by what lies beside it alone.

        Raises
        ------
        SignatureError
            If no trusted key signed that, as hosts will find that have no record of the save.
        MirrorError
            If MLflow could not be asked, or does not have the version.
        """
        wanted = replace(wanted, what=f"{wanted.what} in MLflow")
        try:
            beside = self._beside(target, version)
            return self.signed(beside.pairs, wanted.with_beside(beside))
        except SignatureError as cause:
            fix = Fix("sync", {"resend": True}, effect="puts what was saved there again")
            raise with_fix(cause, cause.data.get("path"), fix) from cause

    def _keep(self, found: Signed, kept: list[Pair]) -> None:
        """Keep what is signed beside a download, as far as that may be written."""
        statement, downloads = found.statement, self._folder.downloads
        if found.pair in kept:
            return
        with suppress(OSError):
            if any(True for _ in downloads.paths(statement.sha256, statement.name)):
                downloads.keep_pair(statement.sha256, statement.save_id, found.pair)

    def _beside(self, target: Target, version: ModelRecord) -> Beside:
        try:
            with private_dirs.brief() as work_dir:
                return self._folder.mirror(target).beside(version, work_dir)
        except LottoMlflowError:
            raise
        except OSError as cause:
            what = f"the signature of version {version.version} of {version.registered_model}"
            raise StoreError(f"{what} could not be fetched: {cause}") from cause

    def _pairs(self, likely_ids: Iterable[str], wanted: Wanted) -> Iterator[Pair]:
        """Yield the pairs of likely saves, then all others that say the right thing."""
        tried: set[str] = set()
        for save_id in likely_ids:
            pair = None if save_id in tried else read_pair(self._layout, save_id)
            tried.add(save_id)
            if pair is not None:
                yield pair
        for statement, pair in pairs_in(self._layout, but=tried):
            if wanted.difference(statement) is None:
                yield pair


_REMEMBERED: dict[tuple[str, str, int | None, str | None], Pair] = {}
"""What was found signed of versions elsewhere, so that not each lookup fetches it again."""


def forget() -> None:
    """Have what is signed of versions elsewhere fetched again."""
    _REMEMBERED.clear()


def _ids_of(history: History, file: ModelFile, sha256: str | None) -> Iterator[str]:
    """Yield the saves that a file may be of, as records say."""
    save = history.save_of(file) if file.is_trained or file.is_backup else None
    if save is not None:
        yield save.id
    restored = history.restore_of(file) if file.is_trained else None
    if restored is not None and restored.payload.save_id is not None:
        yield restored.payload.save_id
    for name in sorted(file.possible_names):
        for record in history.saves_of(name):
            if sha256 is None or record.payload.sha256 == sha256:
                yield record.id


def _metadata_beside(file: ModelFile) -> bytes | None:
    """Return the metadata JSON of a file in the folder.

    Raises
    ------
    SignatureError
        If something else has its name, or it cannot be read.
    """
    return content_of(file.metadata_path, metadata_json.MAX_BYTES)
