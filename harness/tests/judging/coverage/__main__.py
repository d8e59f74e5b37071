"""Prints the table of coverages: `python -m tests.judging.coverage [replicates]` in `harness/`."""

import sys

from tests.judging.coverage.cases import cases

replicates = int(sys.argv[1]) if len(sys.argv) > 1 else 4_000
print("| what is estimated | over | before | after | by |\n|---|---|---|---|---|")
for case in cases():
    before, after = case.coverage(replicates)
    print(f"| {case.kind} | {case.units} | {before:.2f} | {after:.2f} | `{case.function}` |", flush=True)
