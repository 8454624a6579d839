"""One command that turns "never ran on a GPU" into measured: `make gpu`, or `python -m bench.gpu`.

Every check runs in a process of its own with a time limit, and leaves a file of JSON. What has passed isn't repeated
when the command is run again. Frames are made with numpy and weights from a seed: no video and no network are needed.
`python -m bench.gpu --dry` runs every check on the CPU, with stand-ins for what only a GPU has.
"""
