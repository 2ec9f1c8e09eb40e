"""The nouns every room may speak: frozen data, enumerations and faults.

Owns no state and decides nothing. Imports only the standard library.
"""
