"""The models that are served, and the engines that run them on each device."""
