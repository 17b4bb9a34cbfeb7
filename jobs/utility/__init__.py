"""`medphantom evaluate utility`: does a synthetic set help a classifier of findings?

Read `command.py` (what one run measures), `sets.py` (what is read and refused), `arms.py` (what
each kind of classifier is shown), `trained.py` (training, once each) and `figures.py`. `report.py`,
`drawing.py` and `page.html.jinja` make the page.
"""
