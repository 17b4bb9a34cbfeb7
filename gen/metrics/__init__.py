"""Measures of synthetic sets against real ones: features, distances, spectra, classifiers."""
