"""API keys and their quotas, origins of web pages, and hosts that streams may be pulled from."""
