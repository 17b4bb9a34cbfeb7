"""Quality gates: what a made image must pass before it is kept.

gate.py         what a gate is, what it is told, and its verdict
gated.py        make, judge, make again; given up after so many attempts
sanity.py       pixels that are those of a picture
copies.py       no copy of a training image, nor of its source
labels.py       a classifier of real images sees what was asked for
calibration.py  their thresholds, from real images, in one file
"""
