"""`./dev demo`: a real job on real input, with everything shown and everything checked, in under a minute.

library   the input: every .py file of this Python's standard library
measure   what the tasks do, to one file each
alone     the same in one process, to compare times and results with
scene     the tasks, the progress, and the worker that is killed in the middle
checks    what must hold, or the demo fails
show      how all of it looks on a terminal and elsewhere
"""
