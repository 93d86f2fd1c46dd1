"""Anomaly score: how far a text is from the texts the head was fitted on (docs/model.md, section 5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.encoder.gates import SelfInitialized

KAPPA = 40.0
METHODS = ("none", "density", "prototypes")


class AnomalyHead(SelfInitialized):
    """An anomaly score from unit vectors z; larger is more anomalous.

    ``"density"``: −log Σ_k π_k exp(κ cos), a mixture of von Mises–Fisher distributions. ``"prototypes"``, for texts in
    tight clusters: z(min_k within-prototype Mahalanobis − global Mahalanobis) + z(density score), with shrunk
    covariances, the within one shared. ``"none"``: not fitted; the density over prototypes as trained.

    Args:
        size: D.
        prototypes: K.
        calibration: number of held-out scores that p-values are computed from; 0 before the fit.
        method: one of `METHODS`.
    """

    within: Tensor
    total: Tensor
    mean: Tensor
    centres: Tensor
    log_share: Tensor
    shift: Tensor
    spread: Tensor
    calibration: Tensor

    def __init__(self, size: int, prototypes: int, calibration: int, method: str) -> None:
        super().__init__()
        if method not in METHODS:
            raise SpectraError(
                f"the model's anomaly score is of unknown kind {method!r}; known kinds: {', '.join(METHODS)}."
            )
        self.method = method
        self.prototypes = nn.Linear(size, prototypes, bias=False)
        factors = size if method == "prototypes" else 0  # the matrices are large, and only a fitted head needs them
        self.register_buffer("within", torch.empty(factors, factors))  # W with Wᵀ W = within-precision
        self.register_buffer("total", torch.empty(factors, factors))
        self.register_buffer("mean", torch.empty(factors))
        self.register_buffer("centres", torch.empty(prototypes if factors else 0, factors))  # means, not unit vectors
        self.register_buffer("log_share", torch.empty(prototypes))
        self.register_buffer("shift", torch.empty(2))
        self.register_buffer("spread", torch.empty(2))
        self.register_buffer("calibration", torch.empty(calibration))
        self.initialize()

    def initial_values(self) -> dict[str, Tensor]:
        values = {name: torch.zeros(value.shape) for name, value in self.named_buffers(recurse=False)}
        return values | {"spread": torch.ones(2)}

    def forward(self, semantic_BD: Tensor) -> Tensor:
        """Returns the score, (B,) fp32."""
        with torch.autocast(semantic_BD.device.type, enabled=False):
            z_BD = F.normalize(semantic_BD.float(), dim=-1)
            cosines_BK = F.linear(z_BD, F.normalize(self.prototypes.weight.float(), dim=-1))
            density_B = -torch.logsumexp(KAPPA * cosines_BK + self.log_share, dim=-1)
            if self.method != "prototypes":
                return density_B
            relative_B = self.relative_distance(z_BD)
            return (relative_B - self.shift[0]) / self.spread[0] + (density_B - self.shift[1]) / self.spread[1]

    def relative_distance(self, z_BD: Tensor) -> Tensor:
        """Returns squared Mahalanobis distances: to the nearest prototype minus to the mean (Ren et al. 2021)."""
        white_BD = F.linear(z_BD, self.within)
        centres_KD = F.linear(self.centres, self.within)
        nearest_B = torch.cdist(white_BD, centres_KD, compute_mode="use_mm_for_euclid_dist").square().amin(-1)
        return nearest_B - F.linear(z_BD - self.mean, self.total).square().sum(-1)

    def p_value(self, score_B: Tensor) -> Tensor:
        """Returns the conformal p-value: (1 + number of held-out texts at least as anomalous) / (1 + n); NaN for NaN.

        Raises:
            SpectraError: the head is not fitted.
        """
        if self.method == "none":
            raise SpectraError(
                "the anomaly score is not calibrated, so there is no p-value and no is_ood yet. "
                "Fit it on texts of your domain: spectra anomaly fit MODEL --texts SOURCE."
            )
        as_anomalous_B = (self.calibration[None, :] >= score_B[:, None]).sum(-1)
        p_B = (1.0 + as_anomalous_B) / (1.0 + self.calibration.shape[0])
        return torch.where(score_B.isnan(), score_B, p_B)
