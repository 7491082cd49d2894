"""The demo: a whole site on this machine, with traffic, in a folder that is removed at the end.

Beside `balancer.cli` the only place where the three packages meet. `site` starts everything, `show` runs it and sends
traffic, `scenes` does to it what operators do, from another terminal or from a script.
"""
