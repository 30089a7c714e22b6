r"""
A beamformer trained through its filter
=======================================

A microphone array hears speech from one direction and noise from another. The filter of each frequency that lets the
most speech through for the noise it lets pass maximises :math:`w^H \Phi_s w / w^H \Phi_n w`: the leading pair of
:math:`\Phi_s w = \lambda \Phi_n w`, complex and generalised (the GEV beamformer). Both covariances are weighted sums
over time with a mask that says when somebody speaks. A small network that hears one microphone alone tells the mask,
and is trained through the eigenvectors of all 129 frequencies at once, so that the *output* is clean. The recordings
are synthetic: voiced syllables and the noise of a fan, heard by six microphones in a row.
"""

import math

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

import pmaf

torch.manual_seed(0)
RATE, SECONDS, MICROPHONES, SPACING, WINDOW = 8000, 2, 6, 0.04, 256
frequencies = torch.fft.rfftfreq(WINDOW, 1 / RATE)


def resonance(x: Tensor, centre: float, width: float) -> Tensor:
    """A signal through one resonance of the vocal tract."""
    f = torch.fft.rfftfreq(len(x), 1 / RATE)
    return torch.fft.irfft(torch.fft.rfft(x) / (1 + 1j * (f - centre) / width), len(x))


def speech() -> Tensor:
    """Pulses of a gliding pitch in syllables, each with formants of its own, and pauses between."""
    t, sound = torch.arange(RATE * SECONDS) / RATE, torch.zeros(RATE * SECONDS)
    pitch = 120 + 60 * torch.rand(()) + 25 * torch.sin(2 * math.pi * (0.7 + torch.rand(())) * t)
    pulses = (torch.cumsum(pitch / RATE, 0) % 1).diff(prepend=torch.zeros(1)) < 0
    start = 0.1
    while start < SECONDS - 0.4:
        length = float(0.15 + 0.2 * torch.rand(()))
        shape = torch.sin(math.pi * ((t - start) / length).clamp(0, 1)).square()
        formants = torch.tensor([500.0, 1500.0, 2500.0]) * (0.7 + 0.6 * torch.rand(3))
        sound += sum(resonance(pulses * shape, float(f), 90.0) for f in formants)
        start += length + float(0.05 + 0.3 * torch.rand(()))
    return sound / sound.std()


def noise() -> Tensor:
    """Fans: noise of three broad bands that never stops."""
    white = torch.randn(RATE * SECONDS)
    sound = sum(resonance(white, float(f), 400.0) for f in 200 + 3000 * torch.rand(3))
    return sound / sound.std()


def arrival(angle: float, f: Tensor) -> Tensor:
    """How a plane wave reaches the microphones, relative to the first one, ``(frequencies, microphones)``."""
    delays = torch.arange(MICROPHONES) * SPACING * math.cos(math.radians(angle)) / 343
    return torch.exp(-2j * math.pi * f[:, None] * delays)


def heard(sound: Tensor, angle: float) -> Tensor:
    """The spectrogram of each microphone, ``(frequencies, microphones, frames)``."""
    spectrum = torch.fft.rfft(sound)[:, None] * arrival(angle, torch.fft.rfftfreq(len(sound), 1 / RATE))
    channels = torch.fft.irfft(spectrum.T, len(sound))
    return torch.stft(channels, WINDOW, window=torch.hann_window(WINDOW), return_complex=True).transpose(0, 1)


def scene(speaker: float, fan: float) -> tuple[Tensor, Tensor]:
    """Speech, and noise of the same power with a little of the microphones' own."""
    wanted, hum = heard(speech(), speaker), heard(noise(), fan)
    return wanted, hum + 0.3 * torch.randn_like(hum)


def covariance(x: Tensor, mask: Tensor) -> Tensor:
    """Σ mask·x xᴴ over time for each frequency, kept definite by a stated multiple of its mean power."""
    Phi = (mask[:, None] * x) @ x.mH / mask.sum(-1)[:, None, None]
    power = Phi.diagonal(dim1=-2, dim2=-1).real.mean(-1)
    return Phi + 1e-3 * power[:, None, None] * torch.eye(MICROPHONES)


def beamformer(x: Tensor, mask: Tensor) -> Tensor:
    """Filters with the response of the first microphone to the speech, ``(frequencies, microphones)``."""
    B = covariance(x, 1 - mask)
    w = pmaf.ied(covariance(x, mask), metric=B).eigenvectors
    return (w * (B @ w)[:, :1].conj())[..., 0]  # whatever the phase of w


def decibels(w: Tensor, wanted: Tensor, hum: Tensor) -> Tensor:
    """Speech to noise in what a filter lets through."""
    speech, rest = (torch.einsum("fm,fmt->ft", w.conj(), x).abs().square().sum() for x in (wanted, hum))
    return 10 * torch.log10(speech / rest)


class Mask(nn.Module):
    """When there is speech, from the spectrogram of one microphone."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(129, 48, 5, padding=2), nn.ReLU(), nn.Conv1d(48, 1, 5, padding=2))

    def forward(self, x: Tensor) -> Tensor:
        """``(1, frames)``, between 0.01 and 0.99."""
        level = (x[:, 0].abs() + 1e-3).log()
        return 0.01 + 0.98 * self.layers((level - level.mean(-1, keepdim=True))[None])[0].sigmoid()


# %%
# The loss is what counts in the end, speech to noise at the output. Its gradient reaches the mask through both
# covariances. Directions and voices of the training are not those of the test.
scenes = [scene(*(30 + 120 * torch.rand(2)).tolist()) for _ in range(12)]
network = Mask()
optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
history = []
for step in range(96):
    wanted, hum = scenes[step % len(scenes)]
    gain = decibels(beamformer(wanted + hum, network(wanted + hum)), wanted, hum)
    gain = gain - decibels(torch.eye(129, MICROPHONES)[:1].expand(129, -1).to(wanted), wanted, hum)
    optimiser.zero_grad()
    (-gain).backward()
    optimiser.step()
    history.append(float(gain.detach()))

speaker, fan = 60.0, 115.0
wanted, hum = scene(speaker, fan)
mixture = wanted + hum
with torch.no_grad():
    mask = network(mixture)
    w = beamformer(mixture, mask)
first = torch.eye(129, MICROPHONES)[:1].expand(129, -1).to(w)
before, after = (round(float(decibels(x, wanted, hum)), 1) + 0.0 for x in (first, w))  # + 0.0: no negative zero
print(f"speech to noise at one microphone {before:.1f} dB, at the output {after:.1f} dB")
assert after > before + 6

# %%
# Bright in the last picture is what a filter lets through: the speaker at every frequency, while the fan falls into a
# dark valley. Low frequencies, whose waves are longer than the array, cannot tell directions apart.
angles = torch.linspace(0, 180, 181)
response = torch.stack([(w.conj() * arrival(float(a), frequencies)).sum(-1).abs() for a in angles], -1)
figure, axes = plt.subplots(2, 2, figsize=(10, 6), layout="constrained")
output = torch.einsum("fm,fmt->ft", w.conj(), mixture)
pictures = (("one microphone", mixture[:, 0]), ("output", output), ("speech alone", wanted[:, 0]))
for axis, (title, picture) in zip(axes.flat, pictures, strict=False):
    level = 20 * (picture.abs() + 1e-4).log10()
    axis.imshow(
        level, origin="lower", aspect="auto", extent=(0, SECONDS, 0, RATE / 2000), vmin=-10, vmax=40, cmap="magma"
    )
    axis.set(title=title, xlabel="seconds", ylabel="kHz")
axis = axes[1, 1]
shown = axis.imshow(
    20 * response.log10(),
    origin="lower",
    aspect="auto",
    extent=(0, 180, 0, RATE / 2000),
    vmin=-30,
    vmax=5,
    cmap="viridis",
)
axis.axvline(speaker, color="white", label="speaker")
axis.axvline(fan, color="white", linestyle=":", label="fan")
axis.legend(loc="upper right", labelcolor="white", framealpha=0.3)
axis.set(title="what the filters let through", xlabel="direction, degrees", ylabel="kHz")
figure.colorbar(shown, ax=axis, label="dB")
