"""Rate budgets as arithmetic: windows of charges, all-or-nothing admission, estimates of tokens.

Owns the shapes and sums, not the spend itself: the live ledger belongs to ``flow/budgets.py``.
Knows no policy file, no store and no clock. Called by ``flow``.
"""
