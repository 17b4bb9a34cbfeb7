"""Reading and writing: every file is checked before it is decoded, and says where it came from.

In reading order:
    limits.py          what a file may cost; the boundary that turns decoder errors into UnsafeFile
    medical_image.py   one grey picture with its depth and spacing
    pictures.py        PNG and JPEG
    dicom_header.py    DICOM elements within bounds
    provenance.py      the record that makes a picture again
    dicom_object.py    the DICOM object around a synthetic picture
    dicom.py           DICOM in and out
    images.py          any picture in, PNG out
    atomic.py          files that appear whole or not at all
    tiff_directory.py  bytes of TIFF directories
    ome_xml.py         size, scale and record of a slide as OME-XML
    pyramid.py         an image and its halves from rows that arrive once
    slide_writer.py    an image of any size out, as a pyramidal OME-TIFF
    slide.py           any region of a slide or picture in, and thumbnails
    stored_tiles.py    single tiles as they are stored
    deep_zoom.py       a slide as a folder of small files for web pages
    manifest.py        manifest.csv in, metadata.jsonl out
    captions.py        labels to sentences
    prompt_labels.py   sentences to labels
    collection.py      images of any origin as one list
    transforms.py      squares without squashing
"""
