"""What a request costs: CPU time beside the peers, our own growth, and the pure hot paths.

Run `python -P -m bench --help`. Needs Linux and two CPU cores: the target runs on the first, the load and the
upstream nodes on the second.
"""
