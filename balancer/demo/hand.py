"""The commands of the upgrade's plan: what ssh and a service manager do at a real site.

python -P -m balancer.demo.hand SOCKET stop|install|migrate|start NODE
"""

import os
import subprocess
import sys
from pathlib import Path

from balancer.demo.processes import python
from balancer.demo.remote import ask


def main() -> None:
    """Do one thing to one node of the demo."""
    where, action, node = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    if action != "migrate":
        ask(where, action, node=node)
        return
    found = ask(where, "node", node=node)
    command = python("balancer", "api", "migrate", "--config", found["config"])
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": found["release"]})


if __name__ == "__main__":
    main()
