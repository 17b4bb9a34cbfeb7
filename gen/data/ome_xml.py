"""OME-XML of one RGB image: its size, its scale, and a text that travels with it.

The OME data model, 2016-06: https://www.openmicroscopy.org/Schemas/Documentation/Generated/OME-2016-06
"""

from xml.etree import ElementTree

from gen.errors import InvalidInput

_NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_SCHEMA_LOCATION = f"{_NAMESPACE} {_NAMESPACE}/ome.xsd"
_ANNOTATION = "medphantom"
# A record has at most some 20 kB; slides of others may hold a few MB of instrument settings.
_MAX_CHARACTERS = 64 * 2**20


def write_ome_xml(
    height: int, width: int, microns_per_pixel: float, description: str, note: str
) -> str:
    """Describe an image of 8-bit RGB, `height` x `width` pixels; ASCII only.

    Args:
        microns_per_pixel: side of a pixel, in micrometres.
        description: a sentence for people.
        note: text for programs, given back by `read_note`; ASCII.
    """
    root = ElementTree.Element("OME", _root_attributes())
    image = ElementTree.SubElement(root, "Image", ID="Image:0", Name="synthetic")
    ElementTree.SubElement(image, "Description").text = _printable(description)
    pixels = ElementTree.SubElement(image, "Pixels", _pixels(height, width, microns_per_pixel))
    # one channel of three samples: Bio-Formats would take three channels for grey planes
    ElementTree.SubElement(pixels, "Channel", ID="Channel:0:0", SamplesPerPixel="3")
    ElementTree.SubElement(pixels, "TiffData", IFD="0", PlaneCount="1")
    ElementTree.SubElement(image, "AnnotationRef", ID="Annotation:0")
    annotations = ElementTree.SubElement(root, "StructuredAnnotations")
    annotation = ElementTree.SubElement(
        annotations, "CommentAnnotation", ID="Annotation:0", Namespace=_ANNOTATION
    )
    ElementTree.SubElement(annotation, "Value").text = note
    text = ElementTree.tostring(root, encoding="us-ascii").decode()
    return f'<?xml version="1.0" encoding="UTF-8"?>{text.removeprefix(_US_ASCII)}'


def read_note(xml: str, name: str) -> str:
    """Return the text that `write_ome_xml` was given for programs.

    Raises InvalidInput if the document is no OME-XML of ours; entities are never expanded.
    """
    missing = InvalidInput(
        f"{name} holds no record: its ImageDescription is no OME-XML with a {_ANNOTATION!r} "
        "annotation; use the metadata.jsonl that was written beside it"
    )
    if len(xml) > _MAX_CHARACTERS or "<!" in xml:  # a document type could define entities
        raise missing
    try:
        root = ElementTree.fromstring(xml.encode())
    except ElementTree.ParseError as error:
        raise missing from error
    for annotation in root.iter(f"{{{_NAMESPACE}}}CommentAnnotation"):
        if annotation.get("Namespace") == _ANNOTATION:
            return annotation.findtext(f"{{{_NAMESPACE}}}Value") or ""
    raise missing


_US_ASCII = "<?xml version='1.0' encoding='us-ascii'?>\n"


def _root_attributes() -> dict[str, str]:
    return {
        "xmlns": _NAMESPACE,
        "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
        "xsi:schemaLocation": _SCHEMA_LOCATION,
        "Creator": "medphantom",
    }


def _pixels(height: int, width: int, microns_per_pixel: float) -> dict[str, str]:
    """Attributes of Pixels; a physical size without a unit is in micrometres."""
    return {
        "ID": "Pixels:0",
        "DimensionOrder": "XYCZT",
        "Type": "uint8",
        "SignificantBits": "8",
        "Interleaved": "true",
        "SizeX": str(width),
        "SizeY": str(height),
        "SizeC": "3",
        "SizeZ": "1",
        "SizeT": "1",
        "PhysicalSizeX": repr(microns_per_pixel),
        "PhysicalSizeY": repr(microns_per_pixel),
    }


def _printable(text: str) -> str:
    """Without what XML forbids even as a reference."""
    return "".join(character if character.isprintable() else " " for character in text)
