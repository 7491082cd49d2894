"""The command line; the only place where the three packages meet."""
