"""VAE: a variational autoencoder of flat images, and the operator x -> decode(encode(x)) that it is."""

from __future__ import annotations

from torch import Tensor, nn


class VAE(nn.Module):
    """q(z | x) = N(m(x), diag exp v(x)),  x' = D(z)            (Kingma and Welling 2014)

    As a module it is the operator T(x) = D(m(x)), one hidden layer of tanh on either side and pixels in (0, 1) by a
    sigmoid: `solve(Equation(model.operator), x)` looks for the images that it leaves as they are. T is smooth and its
    image bounded, so that it has a fixed point (Brouwer); nothing makes it the only one.

    x, T(x): (B, pixels). latent: numbers in z. Raises ValueError for sizes below 1 and for images of another width.

        >>> import torch, settlepoint as sp
        >>> model = VAE(pixels=6, hidden=4, latent=2)
        >>> sol = sp.solve(sp.Equation(model.operator), torch.rand(3, 6), stop=sp.Tolerance(atol=1e-5))
        >>> sol.counts()
        {'CONVERGED': 3}
    """

    def __init__(self, pixels: int = 64, hidden: int = 128, latent: int = 8):
        super().__init__()
        for name, value in (("pixels", pixels), ("hidden", hidden), ("latent", latent)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.pixels, self.latent = pixels, latent
        self.body = nn.Sequential(nn.Linear(pixels, hidden), nn.Tanh())
        self.mean, self.log_variance = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.Tanh(), nn.Linear(hidden, pixels), nn.Sigmoid())

    @property
    def operator(self) -> VAE:
        """T: the model itself."""
        return self

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (B, pixels) -> (B, latent), (B, latent)
        """m(x) and v(x)."""
        h = self.body(self._fitting(x))
        return self.mean(h), self.log_variance(h)

    def decode(self, z: Tensor) -> Tensor:  # (B, latent) -> (B, pixels)
        """D(z)."""
        return self.decoder(z)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.mean(self.body(self._fitting(x))))

    def _fitting(self, x: Tensor) -> Tensor:
        if x.ndim != 2 or x.shape[1] != self.pixels:
            raise ValueError(f"x must be flat images (B, {self.pixels}), got {tuple(x.shape)}")
        return x
