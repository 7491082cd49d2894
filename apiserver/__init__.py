"""Arvados-compatible API node on PostgreSQL that is safe to run any number of times."""
