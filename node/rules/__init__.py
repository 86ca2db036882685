"""Pure decisions, no I/O: completion, series choice, priority, retention."""
