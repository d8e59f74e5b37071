"""Vector arithmetic on what a successor head reads: adding numbers, greater-than, steering in context.

Read first: `arithmetic` (edits and their success), then `quantities` (what claims are judged on).
"""
