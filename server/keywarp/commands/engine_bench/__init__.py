"""`keywarp bench engine`: a bundle by itself, or beside everything that could run in its place.

Modules, each of which imports only those above it:

    machine       the processor, the runtimes, and this process's memory
    networks      the networks of each configuration, made once and kept in the cache
    footage       the frames that everything runs on
    operations    what the networks' operations predict (Eq. 5 to 7 of the paper)
    turns         takes turns and keeps the times
    peak, nano    two kinds of contestants: large convolutions, and a light network
    eager         a network in PyTorch
    contestants   the others: the whole network on every frame, Keywarp, and its parts
    figures       what the times say
    comparison    all of this in order
    report        tables, JSON and the chart
    alone         a bundle by itself
    command       the command line
"""
