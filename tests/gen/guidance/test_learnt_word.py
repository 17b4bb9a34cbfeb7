"""A word that is no token: where it goes, and that nothing else changes."""

import copy
from typing import Any

import torch

from gen.guidance.learnt_word import encode_with_word, make_room, mean_word

EOS = 1


def test_it_goes_behind_the_last_word_or_takes_its_place_where_there_is_no_room() -> None:
    ids = torch.tensor(
        [[0, 7, 8, EOS, EOS, EOS], [0, EOS, EOS, EOS, EOS, EOS], [0, 2, 3, 4, 5, EOS]]
    )
    roomy, places = make_room(ids, EOS)
    assert places.tolist() == [3, 1, 4]
    assert roomy[0].tolist() == ids[0].tolist()
    assert roomy[2].tolist() == [0, 2, 3, 4, 5, EOS]
    padded = torch.tensor([[0, 7, EOS, 9, 9, 9]])  # another pad token
    roomy, places = make_room(padded, EOS)
    assert (roomy.tolist(), places.tolist()) == ([[0, 7, EOS, EOS, 9, 9]], [2])


def test_it_is_encoded_as_if_the_vocabulary_had_it(tiny_parts: dict[str, Any]) -> None:
    encoder = tiny_parts["text_encoder"]
    ids = torch.tensor([[0, 7, 8, EOS] + [EOS] * 12, [0, 9] + [EOS] * 14])
    roomy, places = make_room(ids, EOS)
    words = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    states = encode_with_word(encoder, roomy, places, words)
    for row in range(2):
        taught = copy.deepcopy(encoder)
        taught.get_input_embeddings().weight[500] = words[row]
        spelt = roomy[row : row + 1].clone()
        spelt[0, places[row]] = 500
        assert torch.allclose(states[row : row + 1], taught(spelt)[0], atol=1e-5)
    # and the encoder is as it was
    assert torch.equal(encoder(ids)[0], copy.deepcopy(encoder)(ids)[0])


def test_its_gradient_reaches_the_word_alone(tiny_parts: dict[str, Any]) -> None:
    roomy, places = make_room(torch.tensor([[0, 7, 8] + [EOS] * 13]), EOS)
    word = torch.zeros(1, 32, requires_grad=True)
    states = encode_with_word(tiny_parts["text_encoder"], roomy, places, word)
    (gradient,) = torch.autograd.grad(states.square().sum(), word)
    assert gradient.abs().sum() > 0


def test_it_starts_as_the_mean_of_the_prompts_words(tiny_parts: dict[str, Any]) -> None:
    encoder = tiny_parts["text_encoder"]
    table = encoder.get_input_embeddings().weight
    ids = torch.tensor([[0, 7, 8, EOS, EOS], [0, EOS, EOS, EOS, EOS]])
    roomy, places = make_room(ids, EOS)
    mean = mean_word(encoder, roomy, places)
    assert torch.allclose(mean[0], (table[7] + table[8]) / 2)
    assert torch.allclose(mean[1], table[0])
