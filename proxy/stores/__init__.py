"""Hands that keep things: the audit spool on disk and the audit stores, what sidecars share of budgets, and the values of
conversations; the spool, the stores and the values each have a twin in memory.

Owns files, connections and SQL (in ``sql/``). Does not know exchanges, policies or HTTP: it implements
the Protocols of ``flow`` and is built by ``app``. Drivers of stores that are not used are not imported.
"""
