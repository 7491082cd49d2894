"""`arv-balance doctor`: the hazards of a site with several nodes, one rule each, over facts that were gathered before.

Nothing in here changes anything anywhere: nodes are asked by GET, files and kernel settings are read.
"""
