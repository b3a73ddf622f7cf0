"""What can be done with a folder of models, one file a verb; each takes a `ModelFolder` first."""
