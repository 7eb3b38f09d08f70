"""Python's garbage collector in a process with thousands of calls in flight.

A full collection looks at every object there is, and nothing else runs meanwhile. Most objects
are what was imported, which never goes: set aside, it is looked at no more. What calls leave
behind is mostly freed without the collector, so it need not look after every 700 new objects.
"""

import gc

NEW_OBJECTS = 20_000
YOUNG_COLLECTIONS = 20
"""Before the next older generation is looked at too."""


def collect_rarely() -> None:
    """Call when everything is imported."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, YOUNG_COLLECTIONS, YOUNG_COLLECTIONS)
