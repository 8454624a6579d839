"""`keywarp bench load`: how many cameras a server can take within an objective."""
