"""`medphantom anomaly`: where scans depart from healthy anatomy, and how well that is found.

command.py      the commands
sources.py      pictures, DICOM objects and volumes, as grey planes
mapper.py       maps of many scans by one model
files.py        what is written beside each map
results.py      which scans are finished, and what was found
maps.py         maps of files and folders
pacs.py         maps of what is in a PACS
calibration.py  thresholds, from healthy pictures alone
sets.py         healthy, planted and boxed pictures to measure on
detectors.py    what is measured
figures.py      the figures, each with its interval
sheet.py        and pictures beside each other
"""
