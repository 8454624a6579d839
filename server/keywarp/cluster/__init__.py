"""Keywarp on a Ray cluster: the server as a deployment of Ray Serve, and videos in bulk on Ray Data."""
