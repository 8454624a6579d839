"""The commands of the full install, added to `keywarp` by entry points: where engines, server and client meet.

Modules here import what is heavy only inside the commands, so that `keywarp --help` stays quick.
"""
