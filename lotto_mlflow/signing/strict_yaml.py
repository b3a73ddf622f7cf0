"""YAML as MLflow writes it, and no other: one document of plain values, read alike by all.

MLflow reads the files of a model with ``yaml.safe_load``. That builds no objects, but it takes the
last of two equal keys, and follows anchors, merge keys and tags, none of which a person who looks
at the file expects. What is accepted here has none of these, so it means what it shows.
"""

from __future__ import annotations

import re
from typing import Any

from lotto_mlflow.errors import SignatureError

_TEXT = re.compile(rb"[\n\x20-\x7e]*")
"""What MLflow's writer puts into a file: other characters are escaped in it."""
_MAX_DEPTH = 16
_TEXT_TAG = "tag:yaml.org,2002:str"


def refusal(name: str, why: str) -> SignatureError:
    """Return the error for a file of a model folder that is not as a push wrote it."""
    return SignatureError(
        f"{name} of the model in MLflow is not as lotto_mlflow writes it: {why}; nothing of the "
        "model was opened",
        problem="model folder",
        file=name,
    )


def parse(content: bytes, name: str) -> Any:
    """Return the values in a file.

    Parameters
    ----------
    content : bytes
        What the file holds.
    name : str
        Its name in the model folder, for the message of an error.

    Raises
    ------
    SignatureError
        If it is no YAML, or has tags, anchors, aliases, merge keys, keys that are no text or that
        repeat, more than one document, or a character that is not of ASCII.

    References
    ----------
    PyYAML 6, ``yaml.safe_load``; MLflow 3.17, ``mlflow.models.Model.load``.
    """
    import yaml  # type: ignore[import-untyped]  # imported lazily

    if not _TEXT.fullmatch(content):
        raise refusal(name, "it has characters that are never written there")
    text = content.decode("ascii")
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            _check_event(event, name)
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:  # whose reading may take minutes
                raise refusal(name, "its values lie too deep in each other")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        _check_keys(root, name)
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as cause:
        raise refusal(name, f"it cannot be read as YAML ({type(cause).__name__})") from cause


def _check_event(event: Any, name: str) -> None:
    import yaml

    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
        raise refusal(name, "it has an anchor or an alias of YAML")
    if isinstance(event, yaml.DocumentStartEvent):
        if event.explicit or event.version or event.tags:
            raise refusal(name, "it has directives or marks of YAML")
    elif getattr(event, "tag", None) is not None:
        raise refusal(name, "it has a tag of YAML")


def _check_keys(node: Any, name: str) -> None:
    import yaml

    if isinstance(node, yaml.SequenceNode):
        for each in node.value:
            _check_keys(each, name)
    if not isinstance(node, yaml.MappingNode):
        return
    seen = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag != _TEXT_TAG:
            raise refusal(name, "it has a key that is no text")
        if key.value in seen:
            raise refusal(name, f"it has the key {key.value:.80} twice")
        seen.add(key.value)
        _check_keys(value, name)
