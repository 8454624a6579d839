"""The paper's experiments by name: they train missing networks, evaluate, and write tables and figures."""
