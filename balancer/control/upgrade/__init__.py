"""Upgrade of all nodes as one command: a plan, a journal of steps, and what to do when it was interrupted."""
