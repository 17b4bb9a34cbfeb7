"""Quality gates: what a made image must pass before it is kept.

gate     what a gate is, what it is told, and its verdict
gated    make, judge, make again; given up after so many attempts
"""
