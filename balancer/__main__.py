"""`python -P -m balancer` is the console script without an installed script."""

from balancer.cli import main

main()
