"""The command line: parse, call the library method of the same name, print, exit code.

A command is a function in the module of its group, decorated with ``@app.command``. It has the
options of `lotto_mlflow.cli.application` that every command has, calls the library inside
`lotto_mlflow.cli.application.calling`, and prints with `lotto_mlflow.cli.output`: as JSON under
``--json``, else for people. An error of the library becomes one line and exit code 1 in
`lotto_mlflow.cli.application`. Whatever imports MLflow or draws is imported inside a function.
"""

from lotto_mlflow.cli import (
    accuracy,
    check,
    find,
    lifecycle,
    maintain,
    predictions,
    remove,
    serve,
    sign,
    ui,
)
from lotto_mlflow.cli.application import app, main

__all__ = [
    "accuracy",
    "app",
    "check",
    "find",
    "lifecycle",
    "main",
    "maintain",
    "predictions",
    "remove",
    "serve",
    "sign",
    "ui",
]
