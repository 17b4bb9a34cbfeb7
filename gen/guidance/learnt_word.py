"""Put a word that is no token behind a prompt, by its embedding."""

from typing import Any

import torch
from torch import Tensor


def make_room(ids: Tensor, eos_token_id: int) -> tuple[Tensor, Tensor]:
    """Token ids (N, L) with a place behind each prompt's last word, and the places (N,).

    The end token moves by one; where there is no room, the word takes the place of the last.
    """
    length = ids.shape[1]
    ends = (ids == eos_token_id).int().argmax(1)  # the first, since pads may be end tokens, too
    places = ends.clamp(max=length - 2)
    roomy = ids.clone()
    rows = torch.arange(len(ids), device=ids.device)
    roomy[rows, places + 1] = eos_token_id
    return roomy, places


def encode_with_word(text_encoder: Any, ids: Tensor, places: Tensor, words: Tensor) -> Tensor:
    """The text encoder's states (N, L, D), with `words` (N, E) as embeddings at `places` (N,)."""
    rows = torch.arange(len(ids), device=ids.device)

    def put(module: Any, arguments: Any, embedded: Tensor) -> Tensor:
        changed = embedded.clone()
        changed[rows, places] = words.to(embedded)
        return changed

    hook = text_encoder.get_input_embeddings().register_forward_hook(put)
    try:
        states: Tensor = text_encoder(ids)[0]
    finally:
        hook.remove()
    return states


def mean_word(text_encoder: Any, ids: Tensor, places: Tensor) -> Tensor:
    """The mean embedding (N, E) of each prompt's words, which says nothing new."""
    embedded = text_encoder.get_input_embeddings()(ids)
    positions = torch.arange(ids.shape[1], device=ids.device)
    # position 0 is the start token; of an empty prompt it is all there is
    said = (positions < places[:, None]) & ((positions > 0) | (places[:, None] == 1))
    weights = said.to(embedded)[..., None]
    mean: Tensor = (embedded * weights).sum(1) / weights.sum(1)
    return mean
