"""Health of one deployment as a machine: recent successes, the breaker, latency quantiles.

Owns the rules that open and close a breaker; the live breakers belong to ``flow/fleet.py``. Knows no
outcome names: what an outcome weighs is in ``core/routing``. Called by ``flow``.
"""
