"""Streams: from payloads to results, in order, with one key-frame state each."""
