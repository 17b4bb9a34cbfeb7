"""`medphantom audit`: what a set of synthetic images is worth, beside what real ones are.

Read `command.py` first: it puts the sections together. `schema.py` is audit.json; `sets.py` reads
the images; `fidelity.py` (with diversity), `alignment.py`, `copies.py`, `fairness.py` and
`sensitivity.py` fill a section each; `stages.py` keeps what is done for a run that was cut off;
`report.py`, `plots.py`, `pictures.py` and `page.html.jinja` draw audit.html.
"""
