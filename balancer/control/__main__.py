"""`python -P -m balancer.control`: started by the parent process."""

import sys

from balancer.control.process import main

sys.exit(main())
