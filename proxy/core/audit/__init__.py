"""Audit decisions: a row from an exchange's facts, the frames of the spool, when a batch is ripe.

Owns no state and no file: bytes and numbers come in, bytes, rows and verdicts go out. Called by
``flow/outbox.py`` (encoding), the stores (frames, rows) and ``flow/delivery.py`` (batches).
"""
