"""A prior of a causal language model of transformers: of GPT-2's class, or another of its call."""

from typing import Any

import torch
from torch import Tensor, nn

from ral_env.nets.noise import gumbel


class CausalPrior(nn.Module):
    """Reads a grid of codes, row by row, as the model's sequence. Fulfils :class:`Prior`.

    Token ``num_codes`` stands before the first code, and before that, as tokens from
    ``num_codes + 1`` on, the grid of the level above where there is one. Sampling keeps keys and
    values; with the same generator it gives what ``UncachedPrior(prior.logits, num_codes)`` does.

    Args:
        model: e.g. ``GPT2LMHeadModel(GPT2Config(vocab_size=num_codes + 1, n_positions=cells))``; of
            a finer level 2 * num_codes + 1 tokens and the positions of both grids.
        num_codes: Number of entries of the codebook.
    """

    def __init__(self, model: Any, num_codes: int):
        super().__init__()
        self.model, self.num_codes = model, num_codes

    def _before(self, codes: Tensor, condition: Tensor | None) -> Tensor:
        above = [] if condition is None else [condition.flatten(1) + self.num_codes + 1]
        return torch.cat([*above, codes.new_full((len(codes), 1), self.num_codes)], 1)

    def logits(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Logits (B, h, w, num_codes) of every cell given those before it. Differentiable."""
        tokens = torch.cat([self._before(codes, condition), codes.flatten(1)[:, :-1]], 1)
        found = self.model(tokens, use_cache=False).logits[:, -codes[0].numel() :]
        return found[..., : self.num_codes].unflatten(1, codes.shape[1:])

    def log_prob(self, codes: Tensor, condition: Any = None, temperature: float = 1.0) -> Tensor:
        """log G of every code given those before it, in nats: (B, h, w). Differentiable."""
        log_probs = (self.logits(codes, condition) / temperature).log_softmax(-1)
        return log_probs.gather(-1, codes.unsqueeze(-1)).squeeze(-1)

    @torch.no_grad()
    def sample(
        self, prefix: Tensor, condition: Any = None, temperature: float = 1.0, generator: Any = None
    ) -> Tensor:
        """Write the EMPTY cells of ``prefix``, (B, h, w): see :meth:`UncachedPrior.sample`."""
        codes, empty, cache, noise = prefix.clone(), prefix == self.num_codes, None, torch.empty(0)
        unseen = self._before(codes, condition)  # tokens that the cache does not have yet
        for row, column in torch.cartesian_prod(*map(torch.arange, codes.shape[1:])).tolist():
            if column == 0 and empty[:, row].any():
                noise = torch.zeros(codes.shape[2], len(codes), self.num_codes, device=codes.device)
                noise = gumbel(tuple(noise.shape), noise, generator) if temperature > 0 else noise
            if (here := empty[:, row, column]).any():
                found = self.model(unseen, cache=cache, use_cache=True)
                cache, unseen = found.cache, unseen[:, :0]
                logits = found.logits[:, -1, : self.num_codes].float() / (temperature or 1.0)
                codes[here, row, column] = (logits + noise[column]).argmax(1)[here]
            unseen = torch.cat([unseen, codes[:, row, column, None]], 1)
        return codes
