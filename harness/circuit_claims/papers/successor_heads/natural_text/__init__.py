"""What the head does in running text: winning and loss-reducing cases, labelled by behaviour.

Read first: `behaviours` (the rules), `natural` (cells of contexts), `quantities` (what claims are judged on).
"""
