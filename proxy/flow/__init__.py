"""Stories: what happens in order, told in async code over the Protocols of ``ports.py``.

Owns the live state (catalog, fleet, budgets, outbox), each piece in one module. Knows no socket,
no database and no file: the hands bring those. Called by ``server`` (an exchange) and ``app`` (the rest).
"""
