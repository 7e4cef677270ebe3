"""How good generator, captioner and detector are, in figures: what is measured and why stands in docs/evaluation.md."""
