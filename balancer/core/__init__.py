"""Pure decisions: no I/O, no clock, no randomness; those come in as arguments."""
