"""``python -m lotto_mlflow``: the command line."""

from lotto_mlflow.cli import main

if __name__ == "__main__":
    main()
