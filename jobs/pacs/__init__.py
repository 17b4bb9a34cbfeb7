"""A hospital's PACS over DICOMweb: what is read from it is analysed, what comes out goes back.

In reading order: `settings.py` (where it is, and who we are there), `connection.py` (asking, and
asking again), `failures.py` (what its refusals mean), `dicom_json.py` (what its answers say),
`search.py` (QIDO-RS), `retrieval.py` (WADO-RS), `storage.py` (STOW-RS), `ledger.py` (what is done),
`process.py` (all of these, for many pictures).
"""
