"""Gates of data set jobs.

config.py     which gates, and of which real images they learn
calibrate.py  what they learn, kept in a folder; reference.py, index_file.py
factory.py    from settings and that folder to gates
log.py        every attempt's verdicts
report.py     rates of acceptance by class and group, recall of planted copies
"""
