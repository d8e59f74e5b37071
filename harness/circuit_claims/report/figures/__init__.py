"""The figures of a report, as SVG with their numbers beside them in a table.

Read first: `evidence` (which kind of evidence is drawn how), then `svg` and `axes`, on which every plot rests.
May import `judging` and the words of `report.text`.
"""
