"""`python -m balancer.cli` is `arv-balance`."""

from balancer.cli import main

if __name__ == "__main__":  # the command tree imports every module of this package
    main()
