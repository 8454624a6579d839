"""`keywarp bench engine`: a bundle by itself, or beside everything that could run in its place.

Modules, each of which imports only those above it:

    machine       the processor, the runtimes, and this process's memory
    networks      the networks of each configuration, made once and kept in the cache
    footage       the frames that everything runs on
    operations    what the networks' operations predict (Eq. 5 to 7 of the paper)
    turns         takes turns and keeps the times
    contestants   what takes turns
    eager         the one that needs PyTorch
    figures       what the times say
    report        tables and JSON; the chart
    comparison    all of this in order
    command       the command line
"""
