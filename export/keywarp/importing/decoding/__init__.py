"""Nodes that turn a file's own outputs into what the engine takes."""
