"""Hands that keep things: the audit spool on disk, the audit stores, each with an in-memory twin.

Owns files, connections and SQL (in ``sql/``). Does not know exchanges, policies or HTTP: it implements
the Protocols of ``flow`` and is built by ``app``. Drivers of stores that are not used are not imported.
"""
