"""A run through the product on simulated draws: ``python -m lotto_mlflow.demo``."""
