"""How fast training is, beside a PyTorch DCGAN of the same architecture: pictures per second at 64 pixels.

    python benchmarks/training.py                 # needs tests/parity/requirement.txt for torch

Both are the published DCGAN (Radford et al., 2016) with a label, the same number of parameters (checked), the same
batch, Adam, and no augmentation. PyTorch's step is that of its own example (pytorch/examples, dcgan): the
discriminator on real pictures, on generated ones, its update, then the generator's. The two take turns in processes
of their own, and the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LATENT, WIDTH, STYLES = 100, 64, 5


def ours(batch: int, seconds: float, bfloat16: bool) -> dict:
    """Atelier's `GAN` under `fit()`, average (EMA) and log included."""
    sys.path.insert(0, str(ROOT))
    from atelier.backend import import_keras

    keras = import_keras(batches=True)
    if bfloat16:
        keras.config.set_dtype_policy("mixed_bfloat16")
    import numpy as np

    from atelier.dataset.loader import batches
    from atelier.generator.train import Recipe, build_gan

    recipe = Recipe(
        generator="dcgan", latent_dim=LATENT, width=WIDTH, discriminator_width=WIDTH, batch_size=batch, augment=()
    )
    gan = build_gan(recipe)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (512, 64, 64, 3), np.uint8)
    feed = batches(images, np.arange(512) % STYLES, batch, LATENT)

    class Clock(keras.callbacks.Callback):
        began, steps = None, 0

        def on_train_batch_end(self, step, logs=None):
            if step == 4:  # compiled and warm
                self.began = time.perf_counter()
            elif step > 4:
                self.steps += 1
                self.model.stop_training = time.perf_counter() - self.began >= seconds

    clock = Clock()
    gan.fit(feed, steps_per_epoch=2**31, verbose=0, shuffle=False, callbacks=[clock])
    speed = clock.steps * batch / (time.perf_counter() - clock.began)
    counts = [sum(int(np.prod(v.shape)) for v in net.trainable_variables) for net in (gan.generator, gan.discriminator)]
    return {"pictures_per_second": speed, "parameters": counts}


def torchs(batch: int, seconds: float, bfloat16: bool) -> dict:
    """The same networks in PyTorch, trained as its example does."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Generator(nn.Module):
        def __init__(self):
            super().__init__()
            self.styles = nn.Embedding(STYLES, 32)
            widths = [8 * WIDTH, 4 * WIDTH, 2 * WIDTH, WIDTH, 3]
            layers = [nn.ConvTranspose2d(LATENT + 32, widths[0], 4, 1, 0, bias=False)]
            for before, after in itertools.pairwise(widths):
                layers += [nn.BatchNorm2d(before), nn.ReLU(True)]
                layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=after == 3)]
            self.layers = nn.Sequential(*layers, nn.Tanh())

        def forward(self, latent, style):
            return self.layers(torch.cat([latent, self.styles(style)], 1)[:, :, None, None])

    class Discriminator(nn.Module):
        def __init__(self):
            super().__init__()
            layers, before = [], 3
            for after in (WIDTH, 2 * WIDTH, 4 * WIDTH, 8 * WIDTH):
                layers += [nn.Conv2d(before, after, 4, 2, 1)]
                layers += [nn.BatchNorm2d(after)] if before > 3 else []
                layers, before = [*layers, nn.LeakyReLU(0.2, True)], after
            self.layers = nn.Sequential(*layers)
            self.realness, self.styles = nn.Linear(16 * before + 1, 1), nn.Embedding(STYLES, before)

        def forward(self, image, style):
            x = self.layers(image)
            spread = (x.var(0, unbiased=False) + 1e-8).sqrt().mean().expand(len(x), 1)
            match = (x.mean((2, 3)) * self.styles(style)).sum(1, keepdim=True)
            return self.realness(torch.cat([x.flatten(1), spread], 1)) + match

    generator, discriminator = Generator(), Discriminator()
    adam = {"lr": 2e-4, "betas": (0.5, 0.999)}
    g_adam = torch.optim.Adam(generator.parameters(), **adam)
    d_adam = torch.optim.Adam(discriminator.parameters(), **adam)
    images = torch.randint(0, 256, (512, 3, 64, 64), dtype=torch.uint8)

    def play(judge, images, style, wanted):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = judge(images, style)
        return F.binary_cross_entropy_with_logits(logits.float(), wanted)

    def step():
        chosen = torch.randint(0, 512, (batch,))
        real, style = images[chosen].float() / 127.5 - 1, chosen % STYLES
        ones, zeros = torch.ones(batch, 1), torch.zeros(batch, 1)
        discriminator.zero_grad()
        play(discriminator, real, style, ones).backward()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            fake = generator(torch.randn(batch, LATENT), style)
        play(discriminator, fake.detach(), style, zeros).backward()
        d_adam.step()
        generator.zero_grad()
        play(discriminator, fake, style, ones).backward()
        g_adam.step()

    for _ in range(4):
        step()
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        step()
        steps += 1
    speed = steps * batch / (time.perf_counter() - began)
    counts = [sum(p.numel() for p in net.parameters() if p.requires_grad) for net in (generator, discriminator)]
    return {"pictures_per_second": speed, "parameters": counts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument(
        "--bfloat16",
        action="store_true",
        help="mixed precision in both (processors with AVX512-BF16 or AMX gain by it)",
    )
    parser.add_argument("--only", choices=("ours", "torch"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        measure = ours if options.only == "ours" else torchs
        print(json.dumps(measure(options.batch, options.seconds, options.bfloat16)))
        return
    speeds, parameters = {"ours": [], "torch": []}, {}
    for _ in range(options.rounds):
        for name in speeds:
            command = [sys.executable, __file__, "--only", name, "--batch", options.batch, "--seconds", options.seconds]
            command += ["--bfloat16"] * options.bfloat16
            done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=os.environ)
            if done.returncode:
                sys.exit(done.stderr)
            record = json.loads(done.stdout.strip().splitlines()[-1])
            speeds[name].append(record["pictures_per_second"])
            parameters[name] = record["parameters"]
    if parameters["ours"] != parameters["torch"]:
        sys.exit(f"the networks are not equal: {parameters}")
    medians = {name: round(statistics.median(values), 1) for name, values in speeds.items()}
    print(json.dumps({"pictures_per_second": medians, "ratio": round(medians["ours"] / medians["torch"], 2)}))


if __name__ == "__main__":
    main()
