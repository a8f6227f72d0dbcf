"""`python -m roadmap`: the program, the same as `python run_ladder.py`."""

import sys

from roadmap.cli.main import main

if __name__ == "__main__":
    sys.exit(main(program="python -m roadmap"))
