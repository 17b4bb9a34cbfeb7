"""Guidance: functions that wrap a predictor and look like one, so the sampling loop need not know.

- classifier_free.py: towards the condition and away from an explicit null condition.
- minority_score.py: how rare an image is by the model's own reckoning.
- ordinal_classifier.py: towards a class of rarity, by a classifier of noisy latents.
- self_guided.py: towards the rare, by the gradient of the score of what forms.
- optimised_prompt.py: towards the rare, by a word learnt while the image forms.
- learnt_word.py: how such a word is put into a prompt.
- boost_and_skip.py: towards the rare, by where sampling starts; it wraps nothing.
- minority.py: the level that is asked for, and the strength of each that reaches it.
"""
