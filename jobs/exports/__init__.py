"""Shards of samples as the formats that training code reads: one format a file.

rows.py           the columns of a sample's row
masks.py          masks as arrays, and the numbers of their labels
imagefolder.py    Hugging Face ImageFolder
webdataset.py     WebDataset shards
parquet.py        Parquet with the images inside
monai.py          MONAI datalist
nnunet.py         nnU-Net raw
coco.py           COCO instances
dicom.py          a folder of DICOM objects
export.py         any of them, whole or not at all
"""
