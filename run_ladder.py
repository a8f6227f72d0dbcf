#!/usr/bin/env python3
"""The program from a checkout: `python run_ladder.py --help`. The same as `python -m roadmap` and `run-ladder`."""

import sys

# A cluster's own Python, where nobody has activated an environment. It has to understand these lines, be it Python 2.
if sys.version_info < (3, 11):  # noqa: UP036
    where = "{} ({})".format(sys.version.split()[0], sys.executable)  # noqa: UP032
    sys.stderr.write("run_ladder.py: needs Python 3.11 or newer; this is " + where + ". Activate the environment that ")
    sys.stderr.write("the program was installed into, or install it with a newer Python (README.md, Quick start).\n")
    sys.exit(2)

from roadmap.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
