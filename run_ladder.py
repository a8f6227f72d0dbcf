#!/usr/bin/env python3
"""The program from a checkout: `python run_ladder.py --help`. The same as `python -m roadmap` and `run-ladder`."""

import sys

from roadmap.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
