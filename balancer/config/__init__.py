"""Configuration file to values: schema, positions, errors, snapshot."""
