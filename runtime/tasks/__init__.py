"""Tasks of one pass: classify, tag, answer, embed."""
