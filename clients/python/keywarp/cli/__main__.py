"""Run the `keywarp` command, for `python -m keywarp.cli`."""

from keywarp.cli.main import main

main()
