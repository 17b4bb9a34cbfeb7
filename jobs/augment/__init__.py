"""`medphantom augment`: plan what a data set lacks, make it, look at it, write it elsewhere.

planning.py   how many of what, and after which real images
plan.py       a plan as the spec of a job
command.py    the commands
"""
