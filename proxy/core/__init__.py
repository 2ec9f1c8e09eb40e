"""Decisions: plain functions and small state machines that turn values into values.

Owns no socket, clock, dice, logger or task: numbers such as ``now_s`` come in as arguments.
Called by ``flow`` and the hands; knows ``terms`` only.
"""
