"""``python -m daprfunc``."""

from daprfunc.cli import main

main()
