"""``policies/*.yaml`` text compiled into the PolicySet that the data path reads.

Owns what a policy may say, the checks that every rule can act, and the choice of a route for one exchange.
Does not know files, sockets or live state (budgets, breakers). Called by ``flow``, ``sources`` and ``cli``.
"""
