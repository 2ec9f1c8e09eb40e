"""Files that change under us: config.yaml, the policy folder and secrets.

Owns reading and watching them by content digest. Does not know what their text means: ``core`` parses.
Called by ``app`` and ``cli``.
"""
