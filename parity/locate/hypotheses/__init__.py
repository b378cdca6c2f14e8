"""Why an operator differs: usual mistakes, each recomputed from the source's activations and compared.

mismatch (what differs, when a hypothesis explains it)
operators, attention and rope, heads (the mistakes of each kind of operator)
"""
