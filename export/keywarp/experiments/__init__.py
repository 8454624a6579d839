"""The paper's experiments by name: trains what is missing, evaluates, writes tables and figures."""
