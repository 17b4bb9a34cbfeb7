"""What can be said in words of a stained field without a pathologist: measured, not judged."""

import numpy as np
from numpy.typing import NDArray

# optical densities of haematoxylin, eosin and what is neither (Ruifrok & Johnston 2001, table 2)
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
NUCLEUS = 0.25  # haematoxylin density from where on a pixel is likely one of a nucleus
GLASS = 0.08  # mean optical density below which a pixel is empty

# share of a field -> words; the first whose limit is not reached counts
NUCLEI = ((0.08, "few nuclei"), (0.22, "scattered nuclei"), (0.42, "many nuclei"))
CROWDED = "crowded nuclei"


def stain_densities(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Haematoxylin, eosin and residual densities (H, W, 3) of RGB pixels (H, W, 3)."""
    optical = -np.log10((pixels.astype(np.float32) + 1) / 256)
    directions = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    densities: NDArray[np.float32] = optical @ np.linalg.inv(directions).astype(np.float32)
    return densities


def shares(pixels: NDArray[np.uint8]) -> tuple[float, float]:
    """(nuclei, glass): the share of the tissue's pixels that lie in nuclei, and of empty pixels."""
    glass = (-np.log10((pixels.astype(np.float32) + 1) / 256)).mean(axis=2) < GLASS
    nuclei = (stain_densities(pixels)[..., 0] > NUCLEUS) & ~glass
    return float(nuclei.sum() / max(1, (~glass).sum())), float(glass.mean())


def words_for(nuclei: float, glass: float) -> list[str]:
    """Words for the shares of a field."""
    if glass > 0.9:
        return ["empty glass"]
    words = [next((word for limit, word in NUCLEI if nuclei < limit), CROWDED)]
    if glass > 0.25:
        words.append("beside empty glass")
    return words
