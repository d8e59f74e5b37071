"""What single papers need beside the general rooms, one folder each; no paper imports another.

Papers reach `judging`, `keeping` and `running` through `circuit_claims.api` alone; the instruments, `heads`, `llc`,
`toy`, `models` and `texts`, are libraries, imported by their room (contracts of `lint-imports`). Read first: the
folder's `__init__`, which says what the paper brings, then the claims in `claims/<paper>`.
"""
