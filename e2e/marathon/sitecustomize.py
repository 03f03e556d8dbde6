"""Gives Python the names back that it had when the DC/OS command line was written; the client itself stays as it is."""

import collections
import collections.abc

for name in ("Iterable", "Mapping", "MutableMapping", "Sequence"):
    if not hasattr(collections, name):
        setattr(collections, name, getattr(collections.abc, name))
