"""The demo: a whole site on this machine, with traffic, in one folder that is removed at the end."""
