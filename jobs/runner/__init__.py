"""Data set jobs: any task over any manifest, made into shards that survive whatever interrupts.

spec.py      what a job is, and what its folder remembers
readers.py   manifests of any form, row by row
rows.py      rows in one vocabulary
items.py     what rows become: names and seeds
freeze.py    the manifest, read once into items
kinds.py     how an item becomes a task's spec, and its result a sample
null.py      a task of almost no work, to measure the runner itself
judges.py    the gates of a job
ledger.py    shards and their notes
making.py    how an item is made, wherever it is
maker.py     one engine that makes shards
progress.py  counts for people
worker.py    a maker as an actor of Ray Data, or in this process
on_ray.py    Ray Data
runner.py    a job from begin to end
report.py    what came out
command.py   `medphantom jobs`
"""
