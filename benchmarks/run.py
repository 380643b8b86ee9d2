"""Measures daprfunc beside its peers and beside Go: `python benchmarks/run.py --help`.

Any Python from 3.10 on, with nothing installed, can run this: it makes what is needed under .cache/bench and goes on
in there, with cli.py.
"""

from __future__ import annotations

import os
import sys

from prepare import HERE, PrepareError, tools_python

if __name__ == "__main__":
    try:
        python = str(tools_python())
    except PrepareError as error:
        sys.exit(f"bench: {error}")
    os.execv(python, [python, str(HERE / "cli.py"), *sys.argv[1:]])
