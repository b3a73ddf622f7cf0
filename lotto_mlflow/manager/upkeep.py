"""Keeping disk and MLflow in step."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from lotto_mlflow import operations
from lotto_mlflow.folder import ModelFolder
from lotto_mlflow.records import (
    Finding,
    MigrateReport,
    ModelRecord,
    Progress,
    SignReport,
    SyncReport,
)

if TYPE_CHECKING:
    from lotto_mlflow.operations.gate import VerifiedVersion
    from lotto_mlflow.operations.restore import RestoreSource


class Upkeep:
    """The methods of `lotto_mlflow.ModelManager` that compare and repair."""

    _folder: ModelFolder

    def sync(
        self,
        *,
        dry_run: bool = False,
        include_backups: bool = False,
        resend: bool = False,
        retry_aside: bool = False,
        progress: Progress | None = None,
    ) -> SyncReport:
        """Send MLflow everything that the current store lacks, in save order.

        That is the outbox, saves that were recorded for another store, and model files that no
        record knows, such as hundreds from before this package.

        Parameters
        ----------
        dry_run : bool
            Only report what would be sent.
        include_backups : bool
            Bring in unknown files of ``backups/``, too.
        resend : bool
            Send again what was sent and then deleted in MLflow, which otherwise stays deleted;
            repair in place what was damaged there since; and record where a version is that was
            renamed, copied or registered again.
        retry_aside : bool
            Try the records again that were set aside.
        progress : callable, optional
            As in `lotto_mlflow.records.Progress`.

        Returns
        -------
        SyncReport
            What was done.

        Raises
        ------
        SyncRunningError
            If another sync of the folder is running. Nothing was changed.
        MirrorUnavailableError
            If MLflow cannot be asked; what was sent before that stays sent.

        Notes
        -----
        Idempotent. Nothing is unpickled. Saves go on meanwhile. An unknown file has the time in its
        metadata, else its own, as the start of its run, and the tag ``backfilled``.
        """
        return operations.sync.sync(
            self._folder,
            dry_run=dry_run,
            include_backups=include_backups,
            resend=resend,
            retry_aside=retry_aside,
            progress=progress,
        )

    def migrate(self, to: str, *, progress: Progress | None = None) -> MigrateReport:
        """Bring all that the current store has of this folder to another store.

        That is what `sync` does under the other store, in save order; the aliases with the history
        of their moves; tags and descriptions that people gave registered models, versions, runs
        and logged models; and the figures of predictions. At the end the bytes of each version
        there are compared with the digest of its save.

        Parameters
        ----------
        to : str
            Address of an MLflow server (``http://…``), or of a database (``postgresql://…``,
            ``sqlite:///…``).
        progress : callable, optional
            As in `lotto_mlflow.records.Progress`; each save is counted up to three times: when it
            is sent, when its tags are copied, and when its digest is compared.

        Returns
        -------
        MigrateReport
            What was done.

        Raises
        ------
        SettingsError
            If ``to`` is no such address, or that of the current store. Nothing was changed.
        MirrorUnavailableError
            If one of the stores cannot be asked, or the other one is of another release of MLflow.
            What was migrated before that stays, and the next call goes on.
        SyncRunningError
            If another migration or sync of the folder is running. Nothing was changed.

        Notes
        -----
        The current store is only read, and stays the current one until ``MLFLOW_TRACKING_URI``
        names the other. Idempotent; who is killed is followed by a call that goes on, and nothing
        is there twice. Saves go on meanwhile, and a second call brings those. Versions have other
        numbers there, after those that others made; in the history of an alias they are the numbers
        there, 0 for versions that had been deleted. What people changed there meanwhile stays.
        Each folder brings its own saves: where several save to one store, migrate each of them; an
        alias that has stood for a save of another folder comes when that save is there.
        """
        return operations.migrate.migrate(self._folder, to, progress)

    def verify(self, *, deep: bool = False, progress: Progress | None = None) -> list[Finding]:
        """Compare disk, records and MLflow, and return every difference.

        Parameters
        ----------
        deep : bool
            Also download what a tracking server keeps; else one warning says how much that is.
        progress : callable, optional
            Called for the model files, whose digests need the time; as in
            `lotto_mlflow.records.Progress`.

        Returns
        -------
        list of Finding
            Empty where both views agree and every digest holds.

        Notes
        -----
        Reads only, unpickles nothing. Saves under way may show as differences.
        """
        return operations.verify.verify(self._folder, progress, deep=deep)

    def verify_version(self, uri: str) -> VerifiedVersion:
        """Verify one version in MLflow: by its signature, and every file that MLflow would run.

        Parameters
        ----------
        uri : str
            ``models:/NAME/1``, ``models:/NAME/latest`` or ``models:/NAME@ALIAS``.

        Returns
        -------
        VerifiedVersion
            The version that this is, and what was signed of it.

        Raises
        ------
        SignatureError
            If none of the trusted keys signed it, by the record of its save and by what lies beside
            it in MLflow, or its model folder holds anything else than a push writes: another
            loader, file, requirement or field of its ``MLmodel``.
        SettingsError
            If no key is trusted.
        ModelNotFoundError
            If there is no such version.

        Notes
        -----
        The model folder is downloaded to a private folder, and removed again; nothing of it is run.
        Whoever opens the version later downloads it once more: `verified_copy` has no such gap.
        """
        return operations.gate.verify(self._folder, uri)

    def verified_copy(self, uri: str) -> AbstractContextManager[VerifiedVersion]:
        """Verify a version as `verify_version` does, and keep the verified copy for a while.

        Parameters
        ----------
        uri : str
            As in `verify_version`.

        Returns
        -------
        context manager of VerifiedVersion
            ``model_dir`` is the verified model folder until the block ends, for MLflow to open.

        Raises
        ------
        LottoMlflowError
            As `verify_version` does, when the block begins.

        Notes
        -----
        Nobody else can write to the copy. One of a process that is killed is removed by the next.
        """
        return operations.gate.verified_copy(self._folder, uri)

    def restore(
        self,
        name_or_version: str | int,
        *,
        source: RestoreSource = "backups",
        backup: str | None = None,
        progress: Progress | None = None,
    ) -> ModelRecord:
        """Bring a model and its metadata back into ``trained/`` and ``metadata/``.

        Parameters
        ----------
        name_or_version : str or int
            A name, a version number of ``lotto_model``, or a ``models:/`` URI.
        source : {"backups", "registry"}
            Where it comes from.
        backup : str, optional
            Which backup, by its file name or stem; the newest of the name by default. Of
            ``backups`` alone.
        progress : callable, optional
            As in `lotto_mlflow.records.Progress`: before the model is fetched, and at the end.

        Returns
        -------
        ModelRecord
            What is in place now.

        Raises
        ------
        ModelNotFoundError
            If there is no such name, version or backup; of a save that was deleted or pruned the
            message says when and why. Nothing was changed.
        DigestMismatchError
            If the source is damaged. Nothing was changed.
        SettingsError
            If the source is neither, or a backup is named of the registry.
        StoreError
            If the disk refuses. Nothing was changed.

        Notes
        -----
        The existing model goes to ``backups/`` first, and the source stays where it is. The file
        keeps its own time, so that an old model does not become the latest; it is no new save.
        Atomic and durable like a save: what is killed is finished or undone by the next of them.
        """
        return operations.restore.restore(self._folder, name_or_version, source, backup, progress)

    def trust(self, accept: str) -> list[ModelRecord]:
        """Accept on purpose that the latest is older than one that this host has seen.

        Parameters
        ----------
        accept : str
            The registered model, such as ``lotto_model``, or the name of a model.

        Returns
        -------
        list of ModelRecord
            The latest on disk and the latest in the registry, as far as there are any: nothing
            older than these is loaded as the latest from now on.

        Raises
        ------
        SignatureError
            If no trusted key signed the latest. Nothing was accepted.
        ModelNotFoundError
            If there is none.
        SettingsError
            If signatures are not asked for (``LOTTO_TRUST=signed``).

        Notes
        -----
        Where signatures are asked for, each host notes the newest signed save that it has seen, in
        ``LOTTO_STATE_DIR``, and refuses a latest that is older: somebody may have put an earlier
        copy of the folder, or of the registry, in its place. After a restore or a deletion by its
        owners, this accepts what is there now. Versions, aliases and paths are not concerned.
        """
        return operations.trust.accept(self._folder, accept)

    def relocate(self, *, relative_to: str | os.PathLike[str] | None = None) -> int:
        """Rewrite the paths in the embedded store's database to where the folder lies now.

        Parameters
        ----------
        relative_to : str or path-like, optional
            Store paths relative to this folder, for a store that is to be committed; MLflow then
            opens it from there only.

        Returns
        -------
        int
            Number of values that were rewritten; 0 where nothing had moved.

        Raises
        ------
        RelocationError
            If there is no embedded store, or it is unknown where it lay before; if ``relative_to``
            is no folder. Nothing was changed.

        Notes
        -----
        One transaction, after a copy of the database was kept beside it (``mlflow.db.*.bak``).
        Idempotent.
        """
        return operations.relocate.relocate(self._folder, relative_to)

    def sign(self, model: str | int | os.PathLike[str]) -> SignReport:
        """Sign a save that is there already, with the key in ``LOTTO_SIGNING_KEY``.

        Parameters
        ----------
        model : str, int or path-like
            A name, a path in ``trained/`` or ``backups/``, a version number of ``lotto_model``, or
            a ``models:/`` URI.

        Returns
        -------
        SignReport
            What was signed, and where the signature lies.

        Raises
        ------
        SettingsError
            If there is no key, or one that may not be used.
        DigestMismatchError
            If the file has other bytes than the save had. Nothing was signed.
        ModelNotFoundError, InvalidReferenceError
            If there is no such model, no record of it, or another host saved it.

        Notes
        -----
        Idempotent. The statement says when it was signed; the signature of another key is replaced.
        The bytes are compared with the record, which whoever may write to the folder could have
        written, too: look first whether the model is what it should be. Nothing is unpickled.
        A version that is in MLflow already gets the signature there, too.
        """
        return operations.sign.sign_model(self._folder, model)

    def flush(self, timeout: float = 60.0) -> bool:
        """Push what waits for the current store, and wait for it, ``timeout`` seconds at most.

        Returns
        -------
        bool
            Whether MLflow has everything; with ``LOTTO_MIRROR=off`` nothing is pushed.
        """
        return operations.sync.flush(self._folder, timeout)

    def warm_up(self, *, wait: bool = False) -> bool | None:
        """Import MLflow and open the current store, before the first save has to.

        Parameters
        ----------
        wait : bool
            Return when it is done, after two minutes at most; by default it is done in the
            background.

        Returns
        -------
        bool or None
            Whether MLflow is ready, with ``wait``; ``None`` without. False, too, where nothing is
            pushed, as with ``LOTTO_MIRROR=off``.

        Notes
        -----
        Idempotent; any number of threads and processes may call it. A missing SQLite database is
        created. What goes wrong is logged as a warning, and raised never: saves do not need MLflow.
        Forking and the end of the interpreter wait for it. Once a process, at the end, what is in
        memory is left out of later garbage collections (``gc.freeze``), which would otherwise hold
        every thread for 0.2 s to go through all of MLflow. After a fork MLflow is imported in the
        child, too, but each process opens the store itself. While MLflow is imported, other
        threads get less of the interpreter: an event loop is held now and then, so a server does
        best to wait for it, in a thread, before it accepts requests.
        """
        return operations.warm_up.warm_up(self._folder, wait=wait)
