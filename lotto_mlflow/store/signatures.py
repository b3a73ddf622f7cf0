"""The signatures of saves on disk: what is signed of each, and its signature, by the save's id."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from lotto_mlflow import regular
from lotto_mlflow.errors import SignatureError
from lotto_mlflow.files import (
    mode_of,
    put,
    remove_file,
    sync_dir,
    temporary_for,
    write_durably,
)
from lotto_mlflow.layout import STATEMENT_SUFFIX, Layout
from lotto_mlflow.records import is_save_id
from lotto_mlflow.signing import Pair, Statement, parse_statement
from lotto_mlflow.signing.pairs import read
from lotto_mlflow.store import make_real_dir
from lotto_mlflow.threads import started


def read_pair(layout: Layout, save_id: str) -> Pair | None:
    """Return what is signed of a save and its signature, ``None`` where one of them is missing.

    Raises
    ------
    SignatureError
        If one is a link, a pipe or the like, too large, or cannot be read. Nothing is verified.
    """
    if not is_save_id(save_id):
        return None
    return read(layout.statement_path(save_id), layout.signature_path(save_id))


def pairs_in(layout: Layout, *, but: Set[str] = frozenset()) -> Iterator[tuple[Statement, Pair]]:
    """Yield what is signed of each save, but for some, newest first, with the pair that it is in.

    Notes
    -----
    For where no record says the save: every statement is read, and nothing is verified.
    """
    for save_id in sorted(ids_of_pairs(layout) - but, reverse=True):
        with suppress(SignatureError):
            pair = read_pair(layout, save_id)
            statement = None if pair is None else parse_statement(pair[0])
            if pair is not None and statement is not None and statement.save_id == save_id:
                yield statement, pair


def ids_of_pairs(layout: Layout) -> set[str]:
    """Return the saves of which there is a statement."""
    if not regular.is_folder(layout.signatures_dir):
        return set()
    names = regular.names_in(layout.signatures_dir)
    found = (n.removesuffix(STATEMENT_SUFFIX) for n in names if n.endswith(STATEMENT_SUFFIX))
    return {save_id for save_id in found if is_save_id(save_id)}


def put_pair(layout: Layout, save_id: str, pair: Pair, work_dir: Path) -> None:
    """Write what is signed of a save and its signature, durably; each in one step."""
    with writing_pair(layout, save_id, pair, work_dir) as put_both:
        put_both()


@contextmanager
def writing_pair(
    layout: Layout, save_id: str | None, pair: Pair | None, work_dir: Path
) -> Iterator[Callable[[], None]]:
    """Write what is signed of a save and its signature beside other work of the disk.

    Parameters
    ----------
    layout : Layout
        The folders.
    save_id : str or None
        The save; ``None`` where there is nothing to write.
    pair : tuple of bytes or None
        What is signed, and the signature.
    work_dir : pathlib.Path
        The workspace for temporary files.

    Yields
    ------
    callable
        Puts both in place, durably, each in one step.

    Raises
    ------
    StoreError
        If a link or the like has the name of the folder or of a file.

    Notes
    -----
    A disk makes three files durable at once in little more than the time of one.
    """
    if save_id is None or pair is None:
        yield lambda: None
        return
    if not regular.is_folder(layout.signatures_dir):
        make_real_dir(layout.signatures_dir)
        sync_dir(layout.mlflow_dir)
    paths = layout.statement_path(save_id), layout.signature_path(save_id)
    for path in paths:
        regular.check_file(path)
    temporaries = [temporary_for(path, work_dir) for path in paths]
    written = [
        started(partial(write_durably, temporary, content, mode_of(path)))
        for temporary, content, path in zip(temporaries, pair, paths, strict=True)
    ]

    def put_both() -> None:
        for wait, temporary, path in zip(written, temporaries, paths, strict=True):
            wait()
            put(temporary, path, work_dir)
        sync_dir(layout.signatures_dir)

    try:
        yield put_both
    finally:
        for wait, temporary in zip(written, temporaries, strict=True):
            with suppress(Exception):  # it was raised where the file was needed
                wait()
            remove_file(temporary)


def remove_pairs(layout: Layout, save_ids: Iterable[str]) -> None:
    """Remove the pairs of saves that never were, or that are gone; what is missing is no error.

    Notes
    -----
    The statement goes last: what is left by a process that dies in between is found by it.
    """
    ids = [save_id for save_id in save_ids if is_save_id(save_id)]
    if not ids or not regular.is_folder(layout.signatures_dir):
        return
    for save_id in ids:
        for path in (layout.signature_path(save_id), layout.statement_path(save_id)):
            if not regular.is_folder(path):
                path.unlink(missing_ok=True)
    sync_dir(layout.signatures_dir)
