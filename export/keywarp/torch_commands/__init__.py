"""The commands that need PyTorch: `init`, `complexity`, `train`, `evaluate`, `reproduce`, `export` and others.

Entry points add them to `keywarp`. Each module imports PyTorch and everything built on it inside its command, so that
`keywarp --help` stays quick and works without PyTorch.
"""
