"""Hand: the doors. The data door (a strict HTTP/1.1 protocol on a C parser) and the admin door (aiohttp).

Owns caller connections, framing, limits and deadlines towards callers. Knows no provider and no policy:
it hands an ``Inbound`` to flow and writes what flow says. Called by app.
"""
