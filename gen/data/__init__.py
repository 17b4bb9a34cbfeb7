"""Reading and writing: every file is checked before it is decoded, and says where it came from.

In reading order:
    limits.py          what a file may cost; the boundary that turns decoder errors into UnsafeFile
    medical_image.py   one grey picture or a stack, with its depth and spacing
    pictures.py        PNG and JPEG
    dicom_header.py    DICOM elements within bounds
    dicom_elements.py  single DICOM elements by rule
    dicom_pixels.py    what DICOM pixels may cost
    dicom_grey.py      stored DICOM values to grey
    dicom_functional_groups.py  what an enhanced DICOM object says of each frame
    provenance.py      the record that makes a picture again
    dicom_origin.py    what a DICOM object says of its making
    dicom_object.py    the DICOM object around a synthetic picture
    dicom.py           DICOM in, one frame or all, and out
    images.py          any picture in, PNG out
    atomic.py          files that appear whole or not at all
    dicom_source.py    the DICOM object that something is derived from
    dicom_derived.py   what a derived DICOM object repeats of it
    dicom_segmentation.py  masks and maps as DICOM segmentations
    dicom_overlay.py   coloured pictures as DICOM secondary captures
    heat_overlay.py    a map in colour over its picture
    volume_axes.py     voxels to upright slices and back
    nifti.py           NIfTI volumes in, maps of them out
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
    model_square.py    from such a square back to the picture
"""
