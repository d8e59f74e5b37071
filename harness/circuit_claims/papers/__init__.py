"""What single papers need beside the general rooms, one folder each; no paper imports another.

Every other room may be used (`circuit_claims.api` first). Read first: the folder's `__init__`, which says what the
paper brings, then the claims in `claims/<paper>`.
"""
