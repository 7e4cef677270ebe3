"""How good a generator is, in figures: what is measured and why stands in docs/evaluation.md."""
