"""Who may use the server, for what, how much, and where it may connect to."""
