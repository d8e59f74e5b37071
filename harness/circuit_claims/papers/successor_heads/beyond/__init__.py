"""The score beyond the paper's eight tasks: Roman numerals held out, and its rise over training."""
