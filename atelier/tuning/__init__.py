"""The search for settings: `python -m atelier tune`, by Optuna. docs/tuning.md tells how to use it."""
