"""Strict YAML for both kinds of file, and ``config.yaml`` text turned into frozen Settings.

Owns the YAML subset, the schema layer (units, did-you-mean, ranges) and the settings read once at start.
Does not know files, secrets' values or what a policy means. Called by ``core.policy``, ``sources`` and ``cli``.
"""
