"""The models that the server has loaded, and their engines on the devices."""
