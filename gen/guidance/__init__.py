"""Guidance: functions that wrap a predictor and look like one, so the sampling loop need not know.

- classifier_free.py: towards the condition and away from an explicit null condition.
"""
