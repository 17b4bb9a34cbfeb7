"""Measures of synthetic sets against real ones.

features.py     features of pictures in memory
feature_cache.py  features of a data set, computed once
intervals.py    figures with intervals, beside the floor of real images
frechet.py, kernel.py, prdc.py  distances and supports of two sets of features
fidelity.py     several of them at once, for groups and the gaps between them
groups.py       groups by finding, view, sex and age
diversity.py    how unlike each other the images of one group are
spectrum.py     how much detail of each size they hold
alignment.py    whether classifiers see what prompts asked for
image_text.py   whether a model of images and texts does
views.py        large pictures as they are measured: at one magnification, by bands and blocks
crops.py        distances of their crops
seams.py        edges where the windows of a large image met, and sharpness
condition.py    whether each place shows what it was asked to
structure.py, tile_copies.py, tile_planted.py  places that are copies of a training tile
weighted.py     bootstraps of figures that are no means, and of gaps between them
anomaly.py      scores of anomaly maps, their AUROC and thresholds from healthy images
anomaly_pixels.py, anomaly_boxes.py  whether maps are high where lesions and boxes are
anomaly_healing.py  whether the pseudo-healthy image keeps and heals what it should
sensitivity.py  known harms, and which figure answers to them
"""
