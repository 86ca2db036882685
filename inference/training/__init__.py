"""Synthetic heads and reports, training, evaluation, run records."""
