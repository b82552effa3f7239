"""The commands of docs/ablations.md are what benchmarks/ablations.py runs."""

import importlib
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch.nn.modules.module import register_module_forward_hook

from plasm.layers import SparseConv2d, SparseTensor
from plasm.layers.sparse_sites import find_sites
from plasm.runs import TrainConfig

ROOT = Path(__file__).parents[1]


def settings(cell: str) -> tuple[dict[str, str], dict[str, str]] | None:
    """Options and model arguments of a command's end in the docs, as text; None where there is no command."""
    words, fields, arguments = shlex.split(cell.strip("` ")), dict[str, str](), dict[str, str]()
    if words == ["none"]:
        return None
    while words:
        name = words.pop(0).removeprefix("--")
        if name == "model-arg":
            key, _, value = words.pop(0).partition("=")
            arguments[key] = value
        elif name.startswith("no-"):
            fields[name.removeprefix("no-").replace("-", "_")] = "False"
        elif not words or words[0].startswith("--"):
            fields[name.replace("-", "_")] = "True"
        elif name not in ("out", "init"):
            fields[name.replace("-", "_")] = words.pop(0)
        else:
            words.pop(0)
    return fields, arguments


@pytest.fixture
def ablations(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("ablations")


def test_rows_are_what_the_stored_list_says(ablations: Any) -> None:
    """No recipe, default or name of a model changes what a row is.

    Where a change is meant: ``json.dumps(ablations.describe(), indent=1)`` is the new list, and the rows that changed
    are to be run again.
    """
    assert ablations.describe() == json.loads(ablations.LIST.read_text(encoding="utf-8"))


def test_each_row_states_what_matters_and_is_another(ablations: Any) -> None:
    stated = (
        "optimizer", "lr", "batch_size", "schedule", "warmup_epochs", "warmup_steps", "decay_epochs", "weight_decay",
        "ema", "clip_grad", "epochs", "clips_per_epoch", "model", "model_args",
    )  # fmt: skip
    for table, rows in ablations.describe().items():
        assert len({ablations.digest(resolved) for resolved in rows.values()}) == len(rows), table
        for resolved in rows.values():
            assert all(name in values for values in resolved.values() for name in stated)
            assert resolved["phase2"]["model_args"]


def test_a_recipe_of_a_model_has_no_say(ablations: Any) -> None:
    """The configuration of a row is what it states, whatever the recipe of plasm_mmnist_tiny."""
    rows = {row.name: row for row in ablations.TABLES["recipe"]}
    for name, optimizer, lr in (("Adam, .002", "adam", 0.002), ("Muon, .002", "muon", 0.002)):
        resolved = ablations.resolve(rows[name], 4800, "plasm_mmnist_tiny")
        config = ablations.config_of(TrainConfig, resolved["phase2"], seed=1, data_dir="data", out="out")
        assert (config.optimizer, config.lr, config.batch_size, config.seed) == (optimizer, lr, 16, 1)
    values = {**resolved["phase2"], "model": "mau_mmnist", "model_args": {}}
    with pytest.raises(ValueError, match="the recipe of mau_mmnist decides task_args"):
        ablations.config_of(TrainConfig, values, data_dir="data", out="out")


def test_the_stored_results_are_of_the_rows(ablations: Any) -> None:
    """A CSV says of each run its clips, its seed and the digest of what it was trained with."""
    for table, rows in ablations.describe().items():
        results = ablations.read_results(ROOT / "docs" / "results" / f"ablations_{table}.csv")
        assert results
        for each in results:
            assert (each.digest, each.clips) == (ablations.digest(rows[each.row]), ablations.CLIPS[table])
        assert {each.row for each in results} == set(rows), table


def seeds_of(ablations: Any, table: str) -> dict[str, dict[int, float]]:
    """The MSE of each row of a stored table, by seed."""
    found: dict[str, dict[int, float]] = {}
    for each in ablations.read_results(ROOT / "docs" / "results" / f"ablations_{table}.csv"):
        found.setdefault(each.row, {})[each.seed] = each.mse
    return found


def test_what_docs_say_of_recipe_and_forms_holds(ablations: Any) -> None:
    """Sentences of docs/ablations.md that compare rows, seed by seed."""
    forms, recipe = (seeds_of(ablations, table) for table in ("forms", "recipe"))
    assert all(len(mse) == 3 for mse in (*forms.values(), *recipe.values()))

    def behind(rows: dict[str, dict[int, float]], name: str, best: str) -> list[float]:
        return [mse - rows[best][seed] for seed, mse in sorted(rows[name].items())]

    none, default, constant = "without PLA", "global, cosine score (default)", "a learned constant a head"
    apart = max(forms[none].values()) - min(forms[none].values())
    assert [round(each, 1) for each in sorted(behind(forms, none, default))] == [0.5, 1.3, 1.5]
    assert [round(each, 1) for each in sorted(behind(forms, none, constant))] == [0.1, 0.6, 1.0]
    left = behind(forms, constant, default)
    assert 0.35 < min(left) < max(left) < 0.65 < apart
    for name in ("global, sigmoid", "local: a number a channel and place", "cross: places of high in low"):
        assert min(behind(forms, name, none)) > 0
    for name in ("gate: a number a channel", "as in the authors' code"):
        assert abs(sum(behind(forms, name, none))) / 3 < apart
    adam = behind(recipe, "Adam, .004", "Muon, .004")
    assert min(adam) > 5
    assert sum(adam) / 3 == pytest.approx(6.4, abs=0.05)
    for rate in (".001", ".002", ".004"):
        assert all(abs(each) < 0.1 for each in behind(recipe, f"AdamW, {rate}, decay .05", f"Adam, {rate}"))

    def of_muon(name: str) -> list[float]:
        return behind(recipe, name, "Muon, .004")

    apart = max(recipe["Muon, .004"].values()) - min(recipe["Muon, .004"].values())
    for name in ("AdaMuon, .004", "Muon, .004, decay .05"):
        assert max(map(abs, of_muon(name))) < 0.35
    assert max(of_muon("Muon, .008")) < 0
    assert sum(of_muon("Muon, .008")) / 3 == pytest.approx(-1.3, abs=0.05)
    assert max(of_muon("Muon, .004, batch 8")) < 0 < min(of_muon("Muon, .004, batch 32"))
    assert max(of_muon("Muon, .004, wsd")) < -2
    assert min(of_muon("Muon, .004, average .99")) > 2
    assert max(of_muon("Muon, .004, encoder 32")) < 0 < min(of_muon("Muon, .004, width 256, depth 2"))
    assert sum(of_muon("Muon, .004, encoder 32")) / 3 == pytest.approx(-0.8, abs=0.05)
    assert sum(of_muon("Muon, .004, width 256, depth 2")) / 3 == pytest.approx(0.6, abs=0.05)
    assert max(of_muon("Muon, .004, width 144, depth 5")) < 0
    assert sum(of_muon("Muon, .004, width 144, depth 5")) / 3 == pytest.approx(-0.4, abs=0.05)
    assert abs(sum(of_muon("Muon, .004, no skip"))) / 3 < apart / 2


def test_a_run_with_other_settings_is_run_again(
    ablations: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[str] = []
    monkeypatch.setattr(ablations, "measure", lambda row, *_: runs.append(row.name) or 1.0)
    command = ["--table", "recipe", "--row", "Adam, .002", "--seeds", "2", "--data-dir", "none", "--out", str(tmp_path)]
    for _ in range(2):
        assert CliRunner().invoke(ablations.main, command, catch_exceptions=False).exit_code == 0
        assert len(runs) == 2
    file = tmp_path / "recipe_plasm_mmnist_tiny_4800.csv"
    first, second = ablations.read_results(file)
    ablations.write_results(file, ablations.TABLES["recipe"], [replace(first, digest="another"), second])
    CliRunner().invoke(ablations.main, command, catch_exceptions=False)
    assert len(runs) == 3
    assert ablations.read_results(file) == [first, second]


def test_what_two_processes_measure_at_once_is_kept(
    ablations: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, rows = tmp_path / "recipe_plasm_mmnist_tiny_4800.csv", ablations.TABLES["recipe"]
    other = ablations.Result("Adam, .004", 0, 4800, "another", 2.0, None)
    # A row takes hours, in which the other process writes its own.
    monkeypatch.setattr(ablations, "measure", lambda *_: ablations.write_results(file, rows, [other]) or 1.0)
    command = ["--table", "recipe", "--row", "Adam, .002", "--seeds", "1", "--data-dir", "none", "--out", str(tmp_path)]
    CliRunner().invoke(ablations.main, command, catch_exceptions=False)
    assert [each.row for each in ablations.read_results(file)] == ["Adam, .002", "Adam, .004"]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (["--table", "recipe", "--row", "Adm"], "no row is called Adm or begins so; there are Adam, .001"),
        (["--table", "forms", "--model", "plasm_mmnist"], "--model has no say in gate: a number a channel"),
        (["--table", "VII", "--model", "plasm_mmnist"], "--model has no say in PhyDNet"),
    ],
)
def test_what_a_table_has_not_is_said(ablations: Any, tmp_path: Path, told: list[str], said: str) -> None:
    """A table without its row, or of models of two sizes, would pass for what was asked for."""
    done = CliRunner().invoke(ablations.main, [*told, "--data-dir", "none", "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("\u2502", " ").split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("table", ["VI", "VIII", "IX", "X", "XI"])
def test_each_row_of_the_papers_tables_has_its_commands(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    rows = importlib.import_module("ablations").TABLES[table]
    page = (ROOT / "docs" / "ablations.md").read_text(encoding="utf-8")
    lines = page.split(f"**Table {table}**\n\n")[1].split("\n\n")[0].splitlines()[2:]
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        name, paper, one, two = (cell.strip() for cell in line.strip("|").split("|"))
        arguments = {key: str(value) for key, value in row.model_args.items()}
        assert (name, paper) == (row.name, str(row.paper or ""))
        if row.scaled:
            # A hook of the script; no command has it.
            assert (one, two) == ("by the script alone", "")
            continue
        expected = row.phase1 and {key: str(value) for key, value in row.phase1.items()}
        assert settings(one) == (None if row.phase1 is None else (expected or {}, arguments))
        assert settings(two) == ({key: str(value) for key, value in row.phase2.items()}, arguments)
        assert ("--init" in two) == (row.phase1 is not None)


def test_a_row_is_named_by_its_name_before_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    ablations = importlib.import_module("ablations")

    def names(*wanted: str) -> list[str]:
        return [row.name for row in ablations.select(ablations.TABLES["VI"], wanted)]

    assert names("mask, SM, PLA") == ["mask, SM, PLA"]
    assert names("PLA", "mask that") == ["PLA", "mask that falls to 0, SM, PLA", "mask that falls to .5, SM, PLA"]
    assert names() == [row.name for row in ablations.TABLES["VI"]]


@pytest.mark.parametrize("stride", [1, 2])
def test_what_is_scaled_by_active_taps(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As convolutions of the masked frame and of the mask, at the places that are active."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    scale = importlib.import_module("ablations").scale_by_active_taps
    torch.manual_seed(0)
    layer, x, visible = SparseConv2d(2, 3, 3, stride, padding=1), torch.randn(2, 2, 9, 8), torch.rand(2, 1, 9, 8) < 0.3
    sites = find_sites(visible, [(3, stride)])
    with register_module_forward_hook(scale):
        found = layer(SparseTensor(sites.gather(x), sites))
    ones = torch.ones(1, 1, 3, 3)
    there, all_taps = (F.conv2d(v, ones, stride=stride, padding=1) for v in (visible * 1.0, torch.ones(2, 1, 9, 8)))
    assert layer.bias is not None
    expected = F.conv2d(x * visible, layer.weight, stride=stride, padding=1) * all_taps / there
    expected = expected + layer.bias[:, None, None]
    torch.testing.assert_close(found.features, found.sites.gather(expected))


def test_the_forms_that_are_none_of_plasms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    forms = importlib.import_module("pla_forms")
    torch.manual_seed(0)
    low, high = torch.randn(2, 2, 32, 5, 4).unbind(0)
    heads = forms.ConstantHeads(32)
    with torch.no_grad():
        heads.logit_bias.copy_(torch.tensor([0.0, 100.0]))
    factors = torch.tensor([0.5, 1.0]).repeat_interleave(16)[:, None, None]
    torch.testing.assert_close(heads(low, high), factors * heads.value(high))
    model = forms.plasm_authors_attention(encoder_dim=4, translator_dim=32, in_frames=2, out_frames=2)
    shared, blocks = model.translator.shared, model.translator.pla
    z, pooled = blocks[0].block(high), F.pad(low.mean((-2, -1)), (1, 1)).unfold(-1, 3, 1)
    q, k = (pooled @ conv.weight.flatten() for conv in (shared.query, shared.key))
    score = ((q * k).unflatten(1, (2, 16)).sum(-1) / 4).sigmoid().repeat_interleave(16, 1)[..., None, None]
    value = F.conv2d(z, shared.value.weight, padding=1, groups=32)
    norm = F.group_norm(score * value + z, 8, shared.norm.weight, shared.norm.bias)
    torch.testing.assert_close(blocks[0](low, high), z + norm)
    torch.testing.assert_close(blocks[-1](low, high), blocks[-1].block(high))
    model(torch.rand(1, 2, 1, 16, 16)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert len({id(p) for p in model.parameters()}) == len(model.state_dict())


@pytest.mark.parametrize("form", ["gate", "local", "cross"])
def test_the_forms_that_carry_texture(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against their formulas, head by head."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    forms = importlib.import_module("pla_forms")
    layer = forms.TextureAttention(8, 2, form).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    low, high = torch.randn(2, 1, 8, 5, 4, dtype=torch.float64).unbind(0)
    seen = [x.mean((2, 3), keepdim=True) if form == "gate" else x for x in (low, high)]
    q, k = (layer.key(low), layer.query(high)) if form == "cross" else (layer.query(seen[0]), layer.key(seen[1]))
    heads = []
    for n in range(2):
        qn, kn, vn, own = (x[0, 4 * n : 4 * n + 4].flatten(1) for x in (q, k, layer.value(high), low))
        if form == "cross":
            heads.append(vn + (torch.softmax(kn.T @ qn / 2, 1) @ own.T).T)
            continue
        # Unit mean square over the channels of the head; the epsilon is torch's, that of the data type.
        eps = torch.finfo(torch.float64).eps
        qn, kn = (x / (x.square().mean(0) + eps).sqrt() for x in (qn, kn))
        gate = 1 / (1 + torch.exp(-(layer.logit_scale[n] * qn * kn + layer.logit_bias[n])))
        heads.append(gate * vn + (1 - gate) * own)
    torch.testing.assert_close(layer(low, high), torch.cat(heads).view(1, 8, 5, 4))
    model = getattr(forms, f"plasm_{form}")(encoder_dim=4, translator_dim=32, in_frames=2, out_frames=2)
    model(torch.rand(1, 2, 1, 16, 16)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
