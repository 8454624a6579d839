"""Lets `python -m keywarp.cli` run the `keywarp` command."""

from keywarp.cli.main import main

main()
