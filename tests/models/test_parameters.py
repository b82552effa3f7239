"""How many parameters every registered model has, in parameters.csv; ``python test_parameters.py`` writes it anew."""

import csv
from pathlib import Path

import timm

import plasm

FILE = Path(__file__).with_name("parameters.csv")


def count() -> dict[str, int]:
    models = {name: timm.create_model(name, device="meta") for name in plasm.list_models()}
    return {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}


def test_every_registered_model_has_the_parameters_it_had() -> None:
    with FILE.open(encoding="utf-8", newline="") as file:
        assert count() == {row["model"]: int(row["parameters"]) for row in csv.DictReader(file)}


if __name__ == "__main__":
    with FILE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("model", "parameters"), *count().items()])
