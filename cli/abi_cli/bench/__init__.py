"""`abi bench`: how fast this machine runs tasks, with abi and with others, in one interleaved run.

    command   the arguments, and the order of things
    lines/    what is measured: one file a line, with its bounds
    contenders/  how each runtime is started, asked and stopped, behind one seam
    rounds    every contender in each round, in rotated order
    child     each measurement in a process of its own, of which nothing is left afterwards
    drive     what runs in that process
    table     the numbers for people; `summary` makes the object that `--json` prints

What `drive` imports needs the standard library only, since it also runs in the Python of a peer's environment.
"""
