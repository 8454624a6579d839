"""Videos as clips to compare, adapt and quantise on: which part of which video, with its motion vectors."""
