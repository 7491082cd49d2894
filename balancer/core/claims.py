"""The promise on a node's capacity across workers: raise your own cell, then sum; over the limit, give back.

Two workers that raise at the same time both see the sum of both, so the limit is never passed; at worst both give back
although one place was free. Close to the limit that would happen often, so there a claim is made under a record lock:
then exactly the free places are handed out. No semaphore: a worker that dies holding one would keep it, while its cells
are zeroed and its locks dropped by the kernel.
"""


def needs_lock(load: int, capacity: int, workers: int) -> bool:
    """Whether a claim has to be made under the node's record lock. `load`: the sum over workers before it."""
    return capacity > 0 and capacity - load <= workers


def fits(load: int, capacity: int) -> bool:
    """Whether a raised claim stands. `load`: the sum over workers with it; capacity 0 is no limit."""
    return capacity == 0 or load <= capacity
