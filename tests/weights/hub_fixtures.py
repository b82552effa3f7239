"""A Hub on loopback, and processes that use plasm with it."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from client import Clients
from hub_server import Hub

import plasm
from plasm import weights

TINY: dict[str, Any] = {"encoder_dim": 8, "translator_dim": 16, "translator_depth": 1}


@pytest.fixture(scope="session")
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.down()


@pytest.fixture
def hub(running_hub: Hub) -> Iterator[Hub]:
    running_hub.heal()
    yield running_hub
    running_hub.heal()


@pytest.fixture(scope="session")
def published(running_hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A row of a manifest for weights of plasm_kth on the Hub."""
    torch.manual_seed(7)
    file = tmp_path_factory.mktemp("kth") / "model.safetensors"
    weights.save_tensors(timm.create_model("plasm_kth").half().state_dict(), file)
    revision = running_hub.add("plasm/kth", {"model.safetensors": file.read_bytes()})
    row = json.loads((Path(weights.__file__).parent / "manifest.json").read_text())[0]
    return {
        **row, "model_args": {}, "model": "plasm_kth", "tag": "test", "file": "model.safetensors", "repo": "plasm/kth",
        "revision": revision, "size": file.stat().st_size, "sha256": weights.file_sha256(file),
    }  # fmt: skip


@pytest.fixture(scope="session")
def clients(running_hub: Hub, published: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """Processes with a copy of plasm whose manifest has weights on the Hub, too."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(Path(plasm.__file__).parent, site / "plasm", ignore=shutil.ignore_patterns("__pycache__"))
    manifest = site / "plasm" / "weights" / "manifest.json"
    manifest.write_text(json.dumps([*json.loads(manifest.read_text()), published]))
    environment = {
        "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]),
        "HF_ENDPOINT": running_hub.endpoint,
        "HF_HOME": str(site / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": "hf_of_no_one",
        "PLASM_WEIGHTS": "",
    }
    jobs = tmp_path_factory.mktemp("jobs")
    jobs.chmod(0o777)  # a job may run as another user
    clients = Clients(jobs, environment)
    yield clients
    clients.close()


@pytest.fixture
def untrusted(tmp_path: Path) -> Path:
    """A folder that someone else made, of a small model."""
    torch.manual_seed(3)
    weights.save_pretrained(timm.create_model("plasm_mmnist_tiny", **TINY), tmp_path / "untrusted")
    return tmp_path / "untrusted"
