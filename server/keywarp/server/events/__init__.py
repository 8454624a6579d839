"""Events: what the rules of a stream report about its objects and classes."""
