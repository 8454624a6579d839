"""From bytes to frames: images, packets, containers and sources that are pulled."""
