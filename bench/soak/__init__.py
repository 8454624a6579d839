"""Soak tests: whether a server keeps its speed and gives back what its clients used."""
