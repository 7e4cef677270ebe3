"""The whole evaluation on tiny pictures with tiny networks, in Python and by command line."""

import json

import numpy as np
import pytest
from PIL import Image

from atelier.__main__ import main
from atelier.evaluation import generator as evaluation
from atelier.evaluation.generator import evaluate_generator
from atelier.images import open_picture
from atelier.seeds import STYLES


@pytest.fixture(scope="module")
def art(tmp_path_factory):
    """A data set whose pictures all differ: twelve training and five validation pictures a medium."""
    root = tmp_path_factory.mktemp("art")
    random = np.random.default_rng(0)
    for style in STYLES:
        for number in range(17):
            folder = root / ("training_set" if number < 12 else "validation_set") / style
            folder.mkdir(parents=True, exist_ok=True)
            colours = random.integers(0, 200, (9, 8, 3), np.uint8)
            colours[..., STYLES.index(style) % 3] //= 1 + STYLES.index(style)
            Image.fromarray(colours).resize((32, 32), Image.Resampling.NEAREST).save(folder / f"{number:05d}.png")
    return root


@pytest.fixture(autouse=True)
def few_repeats(monkeypatch):
    monkeypatch.setattr(evaluation, "REPEATS", 60)


def test_all_figures_in_one_run_and_the_same_again(art, tiny_generator, tiny_networks, tmp_path):
    def run(**options):
        return evaluate_generator(tiny_generator, [art], tmp_path / "out", count=30, **tiny_networks, **options)

    figures = run()
    assert figures["counts"] == {
        "generated": 30,
        "held_out": 25,
        "held_out_dropped_as_near_duplicates": 0,
        "training": 60,
        "training_in_each_sample": 30,
    }
    assert figures["kid"]["label"] == "KID-12 (features)" and figures["fid"]["label"] == "FID-12 (features)"
    assert figures["inception_score"]["label"] == "IS (classes)" and 1 <= figures["inception_score"]["mean"] <= 7
    assert figures["kid"]["mean"] > figures["floor"]["kid"]["mean"] and figures["fid"]["value"] > 0
    for side in (figures, figures["floor"]):
        assert all(0 <= side["precision_recall"][name] <= 1 for name in ("precision", "recall"))
        assert 0 <= side["medium_fidelity"]["overall"] <= 1 and set(side["medium_fidelity"]["per_medium"]) == set(
            STYLES
        )
    assert set(figures["diversity"]) == {"label", *STYLES} and figures["repeats"]["pictures"] == 60
    assert figures["copies"]["hash_compared_with"] == 60 and figures["copies"]["smallest_distance"] > 0

    assert json.loads((tmp_path / "out" / "figures.json").read_text()) == json.loads(json.dumps(figures))
    for name in ("neighbours.png", "figures.png"):
        assert min(open_picture(tmp_path / "out" / name).size) > 100
    assert run() == figures
    other = run(truncation=0.5, full_size=True, all_training=True)
    assert other["kid"] != figures["kid"] and other["real_pictures_at"] == "their own size"


def test_a_generator_that_copies_is_found_out(art, tiny_generator, tiny_networks, tmp_path, monkeypatch):
    pictures = sorted(art.glob("training_set/*/*.png"))

    def copies(painter, seeds, media, truncation, desc):
        return np.stack([np.asarray(open_picture(pictures[seed % 30])) for seed in seeds])

    monkeypatch.setattr(evaluation, "paint", copies)
    figures = evaluate_generator(tiny_generator, [art], tmp_path, count=40, full_size=True, **tiny_networks)
    assert figures["copies"]["within_6_bits"] == 40 and figures["copies"]["smallest_bits"] == 0
    assert figures["copies"]["near_identical"] == 40 and len(figures["copies"]["to_look_at"]) == 20
    assert figures["repeats"]["smallest_bits"] == 0 and figures["repeats"]["near_identical_pairs"] == 30


def test_the_command_prints_one_json_object(art, tiny_generator, tiny_networks, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    networks = [part for name, path in tiny_networks.items() for part in (f"--{name}", str(path))]
    options = ["--generator", str(tiny_generator), "--data", str(art), "--count", "30", *networks]
    assert main(["evaluate", "generator", *options]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert json.loads(printed) == json.loads((tmp_path / "runs/evaluation/figures.json").read_text())
    assert list((tmp_path / "runs/cache").glob("features-*.npy"))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--count", "5"], "count is a number of pictures from 20 up, not 5"),
        (["--truncation", "0.1"], "truncation is a number"),
        (["--generator", "none.h5"], "no generator at none.h5"),
        (["--features", "none.h5"], "no feature network at none.h5"),
        (["--classes", "none.weights.h5"], "no weights of MobileNetV2"),
        (["--data", "nowhere"], "no data folder at nowhere"),
        (["--seed", "-1"], "seed"),
        (["--count", "many"], "--count"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    options, problem, art, tiny_generator, tiny_networks, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    given = {"--generator": tiny_generator, "--data": art}
    given |= {f"--{name}": path for name, path in tiny_networks.items()} | dict(zip(*[iter(options)] * 2, strict=True))
    arguments = [str(part) for pair in given.items() for part in pair]
    try:
        code = main(["evaluate", "generator", *arguments])
    except SystemExit as end:
        code = end.code
    written = capsys.readouterr()
    assert code == 2 and not written.out
    complaint = [line for line in written.err.splitlines() if line.startswith("atelier: error:")]
    assert len(complaint) == 1 and problem in complaint[0]
