"""A mixture of PixelCNNs: a distribution with something hidden that every cell depends on.

p(codes) = 1/K sum_s p_s(codes). Each canvas has one of K styles, all equally often, and expert s
writes it. The style itself is written nowhere: it can be told from the codes alone, and a prior
that sees few of them at a time does not hold it. Its likelihood is exact, so it can be an oracle.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from ral_env.nets.pixelcnn import PixelCNN, PixelCNNConfig
from ral_env.nets.shapes import Codes, Condition, ExpertLogProbs, Logits, LogProbs, StyleProbs


@dataclass(frozen=True)
class MixtureConfig(PixelCNNConfig):
    """Sizes of a mixture: those of an expert, and how many there are. For the coarsest level only.

    Args:
        styles: Number of experts, 2 to num_codes. They are one net, which is told the style.

    Raises:
        ValueError: If a size is out of its range, or there is a level above.
    """

    styles: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.styles <= self.num_codes:
            raise ValueError(f"styles={self.styles}, expected 2 to num_codes={self.num_codes}")
        if self.condition_grid is not None:
            raise ValueError(
                f"condition_grid={self.condition_grid}, expected None: a mixture is of a coarsest "
                "level, leave condition_grid and condition_layers out"
            )

    @property
    def expert(self) -> PixelCNNConfig:
        """The net that all experts are: its condition is a 1x1 grid, which holds the style."""
        sizes = {field.name: getattr(self, field.name) for field in fields(PixelCNNConfig)}
        return PixelCNNConfig(**sizes | {"condition_layers": 1, "condition_grid": (1, 1)})


class Mixture(nn.Module):
    """p(codes) = 1/K sum_s p_s(codes) over one grid of codes. Fulfils :class:`Prior`.

    Where a style is given as the ``condition``, int64 (B, 1, 1) of 0 to styles - 1, it is that
    expert alone: so a mixture learns from canvases whose styles are known.
    """

    def __init__(self, config: MixtureConfig):
        super().__init__()
        self.config = config
        self.expert = PixelCNN(config.expert)

    def log_prob(
        self, codes: Codes, condition: Condition | None = None, temperature: float = 1.0
    ) -> LogProbs:
        """log p of every code given those before it, in nats: (B, h, w). Differentiable.

        Exact: the sum over cells is the log-likelihood of the mixture. Each code's probability is
        the experts', weighted by how likely each style is by the codes before it.

        Args:
            codes: int64 (B, h, w); h may be fewer rows than the grid has.
            condition: The style, int64 (B, 1, 1), where it is known.
            temperature: Divides the experts' logits; the styles stay equally likely.

        Raises:
            ValueError: If the shape, dtype or style does not fit.
        """
        if condition is not None:
            self._check(condition, codes)
            return self.expert.log_prob(codes, condition, temperature)
        experts = self.expert_log_prob(codes, temperature).flatten(2)  # (K, B, cells)
        before = experts.cumsum(2) - experts  # log-likelihood of the codes before
        styles = before.log_softmax(0)  # posterior of the styles, given those
        return (styles + experts).logsumexp(0).view_as(codes)

    def logits(self, codes: Codes, condition: Condition | None = None) -> Logits:
        """Logits of every cell's code given those before it: (B, h, w, num_codes).

        Arguments and errors are those of :meth:`log_prob`, whose values these have at ``codes``.
        """
        if condition is not None:
            self._check(condition, codes)
            return self.expert.logits(codes, condition)
        numbers = torch.arange(self.config.styles, device=codes.device)
        given = numbers.view(-1, 1, 1, 1).expand(-1, len(codes), 1, 1)
        experts = torch.stack([self.expert.logits(codes, style) for style in given]).log_softmax(-1)
        index = codes.expand(self.config.styles, *codes.shape).unsqueeze(-1)
        found = experts.gather(-1, index).flatten(2)
        styles = (found.cumsum(2) - found).log_softmax(0)  # their posterior, given the codes before
        return (styles.view(*experts.shape[:-1], 1) + experts).logsumexp(0)

    def expert_log_prob(self, codes: Codes, temperature: float = 1.0) -> ExpertLogProbs:
        """log p_s of every code given those before it, in nats, of each expert s: (K, B, h, w)."""
        styles = torch.arange(self.config.styles, device=codes.device)
        given = styles.view(-1, 1, 1, 1).expand(-1, len(codes), 1, 1)
        return torch.stack([self.expert.log_prob(codes, style, temperature) for style in given])

    def compute_loss(self, codes: Codes, condition: Condition | None = None) -> dict[str, Tensor]:
        """Maximum likelihood: ``nats_per_code``, the mean of -log p; see :meth:`log_prob`."""
        return {"nats_per_code": -self.log_prob(codes, condition).mean()}

    @torch.no_grad()
    def sample(
        self,
        prefix: Codes,
        condition: Condition | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Codes:
        """Draw each canvas's style, then let that expert write the EMPTY cells; keep all others.

        The style is drawn by how likely the codes before the first EMPTY cell make it; codes that
        are given behind that cell do not count. Exact where there are none, as in every canvas that
        is written in raster order.

        Args:
            prefix: int64 (B, h, w); cells that hold num_codes are EMPTY; h may be fewer rows.
            condition: The style, int64 (B, 1, 1), where it is known; then none is drawn.
            temperature: Divides the experts' logits; 0 takes each expert's likeliest code.
            generator: Source of the noise, on the prefix's device.

        Returns:
            int64 (B, h, w).

        Raises:
            ValueError: If the prefix has another shape, dtype, codes or style, or temperature < 0.
        """
        self.expert.check_sample(prefix, temperature)
        if condition is None:
            weights = self.posterior(prefix, temperature or 1.0)
            condition = torch.multinomial(weights, 1, generator=generator).unsqueeze(2)
        self._check(condition, prefix)
        return self.expert.sample(prefix, condition, temperature, generator)

    def posterior(self, prefix: Codes, temperature: float = 1.0) -> StyleProbs:
        """How likely each style is, by the codes before the first EMPTY cell: (B, K), sums to 1."""
        given = (prefix != self.config.num_codes).flatten(1).cumprod(1).view_as(prefix)
        rows = int(given.any(2).sum(1).max()) if given.numel() else 0
        if not rows:  # nothing is known of any canvas
            return torch.full(
                (len(prefix), self.config.styles), 1 / self.config.styles, device=prefix.device
            )
        known = (prefix * given)[:, :rows]  # no code depends on those put behind it here
        experts = self.expert_log_prob(known, temperature) * given[:, :rows]
        return experts.sum((2, 3)).softmax(0).t()

    def _check(self, style: Tensor, codes: Tensor) -> None:
        expected = (len(codes), 1, 1)
        if style.shape != expected or style.dtype != torch.int64:
            raise ValueError(
                f"the style is {style.dtype} {tuple(style.shape)}, expected torch.int64 {expected}"
            )
        if style.numel() and not 0 <= int(style.min()) <= int(style.max()) < self.config.styles:
            raise ValueError(
                f"styles from {int(style.min())} to {int(style.max())}, expected 0 to "
                f"{self.config.styles - 1}"
            )
