"""Weights from the Hub, through its real client, from a real server."""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client import Clients
from hub_server import Hub

from plasm import weights

NOBODY = 65534


def kth(cache: Path, name: str = "plasm_kth.test") -> str:
    """Code that loads the weights that the manifest has on the Hub, and hashes what was loaded."""
    return (
        "import timm, torch, hashlib\n"
        f"model = timm.create_model({name!r}, pretrained=True, cache_dir={str(cache)!r})\n"
        "result = sum(p.double().abs().sum().item() for p in model.parameters())"
    )


@pytest.fixture(scope="module")
def total(published: dict[str, Any], running_hub: Hub) -> float:
    content = running_hub.repos["plasm/kth"]["main"]["model.safetensors"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "w.safetensors"
        file.write_bytes(content)
        return sum(tensor.double().abs().sum().item() for tensor in weights.load_tensors(file).values())


def left_in(cache: Path) -> list[str]:
    """Weights that a cache holds. (Clients of 2025 keep the first part of a file under a name of its own.)"""
    files = (file for file in cache.rglob("*") if file.is_file() and file.suffix != ".incomplete")
    return [str(file.relative_to(cache)) for file in files if file.stat().st_size > 1000 or "snapshots" in file.parts]


def flip(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


def test_weights_of_the_manifest_come_from_the_hub_once(
    hub: Hub, clients: Clients, tmp_path: Path, published: dict[str, Any], total: float
) -> None:
    listed = clients.run("import plasm; result = plasm.list_models(pretrained=True)")
    assert set(listed) == {"plasm_kth.test", *(row.name for row in weights.entries())}
    for name in ("plasm_kth", "plasm_kth.test"):
        assert clients.run(kth(tmp_path, name)) == pytest.approx(total)
    assert hub.asked(published["sha256"]) == ["GET"]
    assert all(published["revision"] in path for _, path, _ in hub.requests if "resolve" in path)
    hub.down()
    assert clients.run(kth(tmp_path)) == pytest.approx(total)


@pytest.mark.parametrize("damage", [flip, lambda content: content[:-1000], lambda content: b""])
def test_a_damaged_download_is_an_error_and_does_not_stay(
    hub: Hub, clients: Clients, tmp_path: Path, total: float, damage: Any
) -> None:
    hub.damage = damage
    with pytest.raises(RuntimeError, match=r"^(OSError|ConnectionError): model\.safetensors of plasm/kth"):
        clients.run(kth(tmp_path))
    assert left_in(tmp_path) == []
    hub.heal()
    assert clients.run(kth(tmp_path)) == pytest.approx(total)


def test_damage_in_the_cache_is_mended_or_an_error(hub: Hub, clients: Clients, tmp_path: Path, total: float) -> None:
    clients.run(kth(tmp_path))
    (blob,) = (file for file in tmp_path.rglob("blobs/*"))
    blob.write_bytes(flip(blob.read_bytes()))
    assert clients.run(kth(tmp_path)) == pytest.approx(total)
    blob.write_bytes(flip(blob.read_bytes()))
    hub.down()
    with pytest.raises(RuntimeError, match=r"^ConnectionError"):
        clients.run(kth(tmp_path))
    assert left_in(tmp_path) == []


def test_two_processes_at_once(hub: Hub, clients: Clients, tmp_path: Path, total: float) -> None:
    """The first waits in the middle of its download until the second has asked for it."""
    hub.gate.clear()
    jobs = [clients.start(kth(tmp_path)) for _ in range(2)]
    while len(hub.asked("/resolve/")) < 4:  # each looks before it downloads
        assert all(Path(f"/proc/{job.pid}").exists() for job in jobs)
        time.sleep(0.01)
    assert left_in(tmp_path) == []
    hub.gate.set()
    assert [job.result() for job in jobs] == [pytest.approx(total)] * 2


def test_a_killed_download_is_tried_again(hub: Hub, clients: Clients, tmp_path: Path, total: float) -> None:
    hub.stall_at = 500_000
    job = clients.start(kth(tmp_path))
    assert hub.stalled.wait(60)
    job.kill()
    hub.heal()
    assert not list(tmp_path.rglob("snapshots/*/model.safetensors"))
    assert clients.run(kth(tmp_path)) == pytest.approx(total)


def test_a_broken_download_goes_on_where_it_was(hub: Hub, clients: Clients, tmp_path: Path) -> None:
    content = bytes(range(256)) * 100_000  # the client writes blocks of 10 MiB
    revision = hub.add("some/large", {"large.safetensors": content})
    sha256 = hashlib.sha256(content).hexdigest()
    code = (
        "from plasm import weights\n"
        f"weights.fetch('some/large', 'large.safetensors', {revision!r}, {sha256!r}, {str(tmp_path)!r})"
    )
    hub.stall_at = 24 << 20
    job = clients.start(code)
    assert hub.stalled.wait(60)
    hub.stall_at = None
    hub.resume.set()
    try:
        job.result()
    except RuntimeError:
        # The client of 2025 gives up where that of 2026 goes on by itself.
        clients.run(code)
    first, second = (
        int((asked or "=0-")[:-1].partition("=")[2]) for method, _, asked in hub.requests if method == "GET"
    )
    assert first == 0
    assert second >= 20 << 20


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everyone may enter, and its user, who is not root."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for part in [folder, *folder.rglob("*")]:
        if part.is_dir():
            part.chmod(0o755)
    shutil.rmtree(folder)


def test_a_read_only_cache_is_read_and_not_written(hub: Hub, clients: Clients, open_folder: Path, total: float) -> None:
    user = NOBODY if os.getuid() == 0 else None  # root may write anywhere
    warm, cold = open_folder / "warm", open_folder / "cold"
    clients.run(kth(warm))
    cold.mkdir()
    for part in [cold, warm, *warm.rglob("*")]:
        if part.is_dir():
            part.chmod(0o555)
    assert clients.run(kth(warm), user=user) == pytest.approx(total)
    with pytest.raises(RuntimeError, match=r"cannot be stored in .*cold.*HF_HOME"):
        clients.run(kth(cold), user=user)
    (blob,) = warm.rglob("blobs/*")
    blob.write_bytes(flip(blob.read_bytes()))
    with pytest.raises(RuntimeError, match="damaged and cannot be removed"):
        clients.run(kth(warm), user=user)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_nothing(hub: Hub, clients: Clients, full_disk: Path, total: float) -> None:
    with pytest.raises(RuntimeError, match=r"cannot be stored in .*disk: No space left.*make room"):
        clients.run(kth(full_disk))
    assert left_in(full_disk) == []


def test_a_file_too_large_leaves_nothing(hub: Hub, clients: Clients, tmp_path: Path, total: float) -> None:
    with pytest.raises(RuntimeError, match=r"cannot be stored in .*make room"):
        clients.run(kth(tmp_path), largest_file=1_000_000)
    assert left_in(tmp_path) == []
    assert clients.run(kth(tmp_path)) == pytest.approx(total)


@pytest.mark.parametrize("silence", ["refused", "no answer"])
def test_no_network_says_what_to_do(hub: Hub, clients: Clients, tmp_path: Path, silence: str) -> None:
    if silence == "refused":
        hub.down()
    else:
        hub.mute = True
    with pytest.raises(RuntimeError, match=r"^ConnectionError: .*PLASM_WEIGHTS .*local-dir:FOLDER"):
        clients.start(kth(tmp_path)).result(30)


def test_no_network_for_someone_elses(hub: Hub, clients: Clients, tmp_path: Path) -> None:
    hub.down()
    with pytest.raises(RuntimeError, match=r"^ConnectionError: config.json of someone/model.*local-dir:FOLDER"):
        clients.run(f"import plasm; plasm.create_model('hf-hub:someone/model', cache_dir={str(tmp_path)!r})")


def test_a_folder_comes_before_the_hub(
    hub: Hub, clients: Clients, tmp_path: Path, published: dict[str, Any], total: float
) -> None:
    content = hub.repos["plasm/kth"]["main"]["model.safetensors"]
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "plasm_kth.test.safetensors").write_bytes(content)
    cache = tmp_path / "cache"
    folders = os.pathsep.join([str(tmp_path / "not mounted"), str(shared)])
    assert clients.run(kth(cache), PLASM_WEIGHTS=folders) == pytest.approx(total)
    added = f"from plasm import weights; weights.add_source({str(shared)!r})\n"
    assert clients.run(added + kth(cache)) == pytest.approx(total)
    assert hub.requests == []
    (shared / "plasm_kth.test.safetensors").write_bytes(flip(content))
    with pytest.raises(RuntimeError, match=r"OSError: .*shared/plasm_kth\.test\.safetensors is damaged"):
        clients.run(kth(cache), PLASM_WEIGHTS=folders)
    assert hub.requests == []


@pytest.mark.parametrize("missing", ["repository", "revision", "file"])
def test_what_the_hub_has_not(hub: Hub, clients: Clients, tmp_path: Path, missing: str) -> None:
    repo = "no/where" if missing == "repository" else "plasm/kth"
    revision = "f" * 40 if missing == "revision" else None
    file = "none.safetensors" if missing == "file" else "model.safetensors"
    with pytest.raises(RuntimeError, match=f"^WeightsNotFoundError: the Hub has no {file} of {repo}"):
        clients.run(
            f"from plasm import weights; weights.fetch({repo!r}, {file!r}, {revision!r}, None, {str(tmp_path)!r})"
        )


def load_untrusted(cache: Path, repo: str, **arguments: Any) -> str:
    return (
        f"import timm, plasm\nmodel = timm.create_model('hf-hub:{repo}', cache_dir={str(cache)!r}, "
        f"**{ ({'pretrained': True} | arguments)!r})\n"
        "result = sum(p.double().abs().sum().item() for p in model.parameters())"
    )


def in_repo(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_weights_of_someone_else(hub: Hub, clients: Clients, tmp_path: Path, untrusted: Path) -> None:
    first = hub.add("someone/model", in_repo(untrusted))
    expected = sum(
        t.double().abs().sum().item() for t in weights.load_tensors(untrusted / "model.safetensors").values()
    )
    assert clients.run(load_untrusted(tmp_path, "someone/model")) == pytest.approx(expected)
    hub.add("someone/model", {"config.json": b"{}"})
    assert clients.run(load_untrusted(tmp_path, f"someone/model@{first}")) == pytest.approx(expected)
    evaluated = f"from plasm.models import load_model; load_model(None, 'hf-hub:someone/model@{first}')"
    clients.run(evaluated)


def test_damaged_weights_of_someone_else(hub: Hub, clients: Clients, tmp_path: Path, untrusted: Path) -> None:
    files = in_repo(untrusted)
    hub.add("someone/flipped", files)
    # One of timm's own has no sha256 in its config.json: then what the Hub says of it counts.
    config = json.loads(files["config.json"])
    del config["weights"]
    hub.add("someone/else", {**files, "config.json": json.dumps(config).encode()})
    hub.damage = flip
    for repo in ("someone/flipped", "someone/else"):
        with pytest.raises(RuntimeError, match=r"OSError: model\.safetensors of .* came damaged"):
            clients.run(load_untrusted(tmp_path, repo))
    assert not list(tmp_path.rglob("snapshots/*/model.safetensors"))
    hub.heal()
    for repo in ("someone/flipped", "someone/else"):
        clients.run(load_untrusted(tmp_path, repo))
    hub.add("someone/other", {**files, "model.safetensors": flip(files["model.safetensors"])})
    with pytest.raises(RuntimeError, match="came damaged"):
        clients.run(load_untrusted(tmp_path, "someone/other"))


@pytest.mark.parametrize("maker", ["timm", "plasm"])
@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize(
    ("whole", "damaged"), [('"crop_pct": 1.0', '"crop_pct": 2.0'), ('"translator_dim": 16', '"translator_dim": 99999')]
)
def test_a_damaged_configuration_of_someone_else(
    hub: Hub, clients: Clients, tmp_path: Path, untrusted: Path, maker: str, pretrained: bool, whole: str, damaged: str
) -> None:
    hub.add("someone/config", in_repo(untrusted))
    hub.damage_small = lambda content: content.replace(whole.encode(), damaged.encode())
    load = load_untrusted(tmp_path, "someone/config", pretrained=pretrained)
    load = load.replace("timm.create_model", f"{maker}.create_model")
    with pytest.raises(RuntimeError, match=r"OSError: config\.json of .* came damaged"):
        clients.run(load)
    assert not list(tmp_path.rglob("snapshots/*/config.json"))
    hub.heal()
    clients.run(load)


def test_a_configuration_that_timm_cannot_read_is_mended_by_plasm(
    hub: Hub, clients: Clients, tmp_path: Path, untrusted: Path
) -> None:
    hub.add("someone/broken", in_repo(untrusted))
    hub.damage_small = lambda content: content[:50]
    load = load_untrusted(tmp_path, "someone/broken")
    with pytest.raises(RuntimeError):
        clients.run(load)
    hub.heal()
    clients.run(load.replace("timm.create_model", "plasm.create_model"))


NO_LINKS = "import huggingface_hub.file_download as d; d.are_symlinks_supported = lambda *a, **k: False\n"


def test_a_cache_without_symbolic_links(hub: Hub, clients: Clients, tmp_path: Path, untrusted: Path) -> None:
    """As on Windows: there nothing in the cache says what the Hub said of a file."""
    files = in_repo(untrusted)
    config = json.loads(files["config.json"])
    del config["weights"]
    hub.add("someone/unlinked", {**files, "config.json": json.dumps(config).encode()})
    hub.damage = flip
    load = NO_LINKS + load_untrusted(tmp_path, "someone/unlinked")
    with pytest.raises(RuntimeError, match=r"OSError: model\.safetensors of .* came damaged"):
        clients.run(load)
    hub.heal()
    clients.run(load)
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_a_hub_in_trouble_is_no_hub(hub: Hub, clients: Clients, tmp_path: Path, untrusted: Path) -> None:
    hub.add("someone/model", in_repo(untrusted))
    load = load_untrusted(tmp_path, "someone/model").replace("timm.create_model", "plasm.create_model")
    hub.status = 503
    with pytest.raises(
        RuntimeError, match=r"(?s)^ConnectionError: config\.json of someone/model.*503.*local-dir:FOLDER"
    ):
        clients.run(load)
    hub.heal()
    clients.run(load)
    hub.status = 503
    clients.run(load)


def test_no_pickle_is_opened(hub: Hub, clients: Clients, tmp_path: Path, untrusted: Path) -> None:
    files = in_repo(untrusted)
    bomb = b"cos\nsystem\n(S'touch opened'\ntR."
    config = json.loads(files["config.json"])
    config["pretrained_cfg"] |= {
        "hf_hub_filename": "pytorch_model.bin",
        "file": "pytorch_model.bin",
        "custom_load": "hf",
    }
    hub.add("someone/pickle", {"config.json": json.dumps(config).encode(), "pytorch_model.bin": bomb})
    with pytest.raises(RuntimeError, match=r"the Hub has no model\.safetensors of someone/pickle"):
        clients.run(load_untrusted(tmp_path, "someone/pickle"))
    assert hub.asked("pytorch_model.bin") == []
    hub.add("someone/resnet", {"config.json": b'{"architecture": "resnet10t"}', "pytorch_model.bin": bomb})
    for name in (None, "plasm_mmnist_tiny"):
        code = f"from plasm.models import load_model; load_model({name!r}, 'hf-hub:someone/resnet')"
        with pytest.raises(RuntimeError, match=r"ValueError: .* holds a resnet10t, which is no model of plasm"):
            clients.run(code)
    assert hub.asked("pytorch_model.bin") == []


def test_another_file_of_a_repository(hub: Hub, clients: Clients, tmp_path: Path, untrusted: Path) -> None:
    """The sha256 in config.json is of one file."""
    files = in_repo(untrusted)
    tensors = {name: tensor * 0 for name, tensor in weights.load_tensors(untrusted / "model.safetensors").items()}
    weights.save_tensors(tensors, untrusted / "ema.safetensors")
    hub.add("someone/two", {**files, "ema.safetensors": (untrusted / "ema.safetensors").read_bytes()})
    overlay = {"hf_hub_filename": "ema.safetensors"}
    assert clients.run(load_untrusted(tmp_path, "someone/two", pretrained_cfg_overlay=overlay)) == 0


def test_an_absurd_model_is_refused_before_anything_else(
    hub: Hub, clients: Clients, tmp_path: Path, untrusted: Path
) -> None:
    files = in_repo(untrusted)
    config = json.loads(files["config.json"])
    config["model_args"]["translator_dim"] = 10**9
    hub.add("someone/absurd", {**files, "config.json": json.dumps(config).encode()})
    for pretrained in (True, False):
        with pytest.raises(RuntimeError, match=r"someone/absurd has translator_dim = 1000000000"):
            clients.run(load_untrusted(tmp_path, "someone/absurd", pretrained=pretrained))
    assert hub.asked("model.safetensors") == []
