"""`python -m balancer.cli` is `arv-balance`."""

from balancer.cli import main

main()
