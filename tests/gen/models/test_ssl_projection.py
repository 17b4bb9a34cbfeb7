"""The projection of embeddings to context."""

import torch

from gen.models.ssl_projection import SSLProjection


def projection() -> SSLProjection:
    torch.manual_seed(0)
    return SSLProjection(embedding_dim=8, cross_attention_dim=16, num_tokens=3).eval()


def test_tokens_are_those_of_the_embedding_and_one_of_the_magnification() -> None:
    network = projection()
    embeddings = torch.nn.functional.normalize(torch.randn(2, 8), dim=1)
    context = network(embeddings, torch.tensor([0.5, 0.5]))
    assert context.shape == (2, 4, 16)
    coarser = network(embeddings, torch.tensor([0.5, 2.0]))
    assert torch.equal(context[:, :3], coarser[:, :3])
    assert torch.equal(context[0, 3], coarser[0, 3])
    assert not torch.allclose(context[1, 3], coarser[1, 3])


def test_rows_do_not_depend_on_each_other() -> None:
    network = projection()
    embeddings, scales = torch.randn(5, 8), torch.tensor([0.25, 0.5, 1.0, 2.0, 4.0])
    alone = torch.cat([network(embeddings[i : i + 1], scales[i : i + 1]) for i in range(5)])
    assert torch.allclose(network(embeddings, scales), alone, atol=1e-6)


def test_the_null_is_learnt_and_knows_the_magnification() -> None:
    network = projection()
    scales = torch.tensor([0.5, 1.0])
    assert torch.equal(network.null(scales), network(torch.zeros(2, 8), scales))
    network.null(scales).sum().backward()
    assert network.null_embedding.grad is not None


def test_one_octave_is_told_apart_from_the_next_by_every_frequency() -> None:
    waves = projection()._waves(torch.tensor([1.0, 2.0]))
    quarter = torch.tensor([torch.pi / 4 * 2**k for k in range(4)])
    assert torch.allclose(waves[0], torch.tensor([0.0] * 4 + [1.0] * 4))
    assert torch.allclose(waves[1], torch.cat([quarter.sin(), quarter.cos()]), atol=1e-6)
