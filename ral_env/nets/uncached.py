"""A prior from nothing but logits: exact, and slow."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ral_env.nets.noise import gumbel
from ral_env.nets.shapes import Codes, Condition, LogProbs


class UncachedPrior(nn.Module):
    """Makes a prior of any causal network: a transformer, say. Fulfils :class:`Prior`.

    Sampling is exact but slow: a whole forward pass for *each code*, without a cache.
    With the same generator it draws the same noise as :meth:`PixelCNN.sample`.

    Args:
        logits: Called as ``logits(codes)``, or ``logits(codes, condition)`` for a finer level, with
            int64 codes (B, h, w), where h may be fewer rows than the grid has. Returns the logits
            (B, h, w, num_codes) of every cell given all cells before it in raster order. A module
            is trained and copied along.
        num_codes: Number of entries of the codebook.
    """

    def __init__(self, logits: Callable[..., Tensor], num_codes: int):
        super().__init__()
        self.logits = logits
        self.num_codes = num_codes

    def log_prob(
        self, codes: Codes, condition: Condition | None = None, temperature: float = 1.0
    ) -> LogProbs:
        """log G of every code given those before it, in nats: (B, h, w). Differentiable."""
        log_probs = (self._logits(codes, condition) / temperature).log_softmax(-1)
        return log_probs.gather(-1, codes.unsqueeze(-1)).squeeze(-1)

    @torch.no_grad()
    def sample(
        self,
        prefix: Codes,
        condition: Condition | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Codes:
        """Write the EMPTY cells of ``prefix``: arguments and noise of :meth:`PixelCNN.sample`.

        Unlike there, dropout is on in train mode: sample in eval mode.

        Raises:
            ValueError: If temperature < 0.
        """
        if not temperature >= 0:
            raise ValueError(f"temperature={temperature}, expected 0 or more")
        codes, empty = prefix.clone(), prefix == self.num_codes
        batch, rows, columns = prefix.shape
        like = torch.empty(0, device=prefix.device)  # float32
        for row in range(rows):
            if not empty[:, row].any():
                continue
            noise = like.new_zeros(columns, batch, self.num_codes)
            if temperature > 0:
                noise = gumbel(tuple(noise.shape), like, generator)
            for column in range(columns):
                here = empty[:, row, column]
                if here.any():
                    # Any code will do where none is yet: nothing before it depends on it.
                    known = codes.masked_fill(codes == self.num_codes, 0)
                    logits = self._logits(known, condition)[:, row, column].float()
                    scores = logits / (temperature or 1.0) + noise[column]
                    codes[here, row, column] = scores.argmax(1)[here]
        return codes

    def _logits(self, codes: Tensor, condition: Tensor | None) -> Tensor:
        return self.logits(codes) if condition is None else self.logits(codes, condition)
