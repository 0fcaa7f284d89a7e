"""The paper's figures, and figures of our runs: one module each.

Every ``draw`` gives a matplotlib figure and writes nothing; ``python -m analysis.figures`` saves.
"""
