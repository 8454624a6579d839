"""`python -m keywarp.cli` is `keywarp`."""

from keywarp.cli.main import main

main()
