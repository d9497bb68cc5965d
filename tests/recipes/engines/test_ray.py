"""The Ray engine on a real cluster of two nodes: the same bits as the local engine, whoever dies on the way."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from coverslip.store.sidecar import Sidecar
from feature_study import write_study

pytest.importorskip("ray", reason="the extra coverslip[ray] is not installed")


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, int]]:
    """How often each row was kept: a row is marked as finished in this process alone, so nothing is missed."""
    counts: Counter[tuple[str, int]] = Counter()
    mark = Sidecar._mark

    def counting(self: Sidecar, index: Any, state: int) -> None:
        mark(self, index, state)
        counts.update((self.path.name, int(number)) for number in index)

    monkeypatch.setattr(Sidecar, "_mark", counting)
    return counts


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of four tiles, a few to an encoder at a time: enough of them that a death finds some on their way."""
    monkeypatch.setattr("coverslip.recipes.engines.ray_embed._PIECE_BYTES", 4 * 64 * 64 * 3)
    monkeypatch.setattr("coverslip.recipes.engines.ray_embed._TAKE_TILES", 8)


# The same files


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["texture", "timm:test_vit"])
def test_features_are_the_local_engines_byte_for_byte_and_a_bad_slide_fails_alone(
    encoder: str, cohort: Path, two_nodes: Any, coverslip: Callable[..., Any]
) -> None:
    study = [cohort / "study.toml", "--set", f"encoder.name={encoder}"]
    if encoder != "texture":
        study += ["--set", "encoder.weights=random", "--set", "tiles.size_px=160"]
    assert coverslip("embed", *study, "--set", "features.store=local").code == 0
    (cohort / "slides" / "case-03.tif").write_text("no slide")
    said = coverslip(
        *("embed", *study, "--set", "features.store=far", "--set", "output=far_run"),
        *("--engine", "ray", "--ray-address", two_nodes.address),
    )
    assert said.code == 1
    assert "failed\tcase-03\t" in said.err
    local = _files(cohort / "local")
    del local["case-03.h5"]
    assert _files(cohort / "far") == local
    run = cohort / "far_run"
    outcomes = pd.read_csv(run / "outcomes.csv")
    assert Counter(outcomes["status"]) == {"done": 11, "failed": 1}
    assert len(list((run / "tissue").iterdir())) == 11
    assert "engine: ray" in (run / "run.log").read_text()
    assert json.loads((run / "embedding.json").read_text())["encoder"] == encoder


@pytest.mark.slow
def test_folds_trained_on_the_cluster_are_those_trained_here(
    cohort: Path, two_nodes: Any, coverslip: Callable[..., Any]
) -> None:
    study = cohort / "study.toml"
    assert coverslip("train", study, "--set", "output=here").code == 0
    far = ("train", study, "--set", "output=far", "--engine", "ray", "--ray-address", two_nodes.address)
    said = coverslip(*far)
    assert said.code == 0, said.err
    for name in ("predictions.csv", "split.json", *(f"models/fold{n}/weights.safetensors" for n in range(3))):
        assert (cohort / "far" / name).read_bytes() == (cohort / "here" / name).read_bytes(), name
    here, there = (json.loads((cohort / run / "metrics.json").read_text()) for run in ("here", "far"))
    assert here == there
    engine = json.loads((cohort / "far" / "environment.json").read_text())["engine"]
    assert (engine["name"], engine["nodes"], engine["cpus"]) == ("ray", 2, 2)
    assert coverslip(*far).code == 0
    assert (cohort / "far" / "run.log").read_text().count("reused") == 3


@pytest.mark.slow
def test_inner_folds_on_the_cluster_give_the_figures_of_those_trained_here(
    tmp_path: Path, two_nodes: Any, coverslip: Callable[..., Any]
) -> None:
    study = write_study(tmp_path, 24)
    more = ("--set", "evaluation.inner_folds=2")
    assert coverslip("train", study, *more, "--set", "output=here").code == 0
    far = (*more, "--set", "output=far", "--engine", "ray", "--ray-address", two_nodes.address)
    said = coverslip("train", study, *far)
    assert said.code == 0, said.err
    here, there = (json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("here", "far"))
    assert here == there and here["inner"] == {"folds": 2, "without": {}}
    for fold in (0, 1):
        inner = [(tmp_path / run / "models" / f"fold{fold}" / "inner.csv").read_bytes() for run in ("here", "far")]
        assert inner[0] == inner[1] and inner[0].count(b"\n") > 10


# Deaths


@pytest.mark.slow
def test_a_killed_worker_and_a_killed_node_lose_nothing_and_repeat_nothing(
    cohort: Path,
    two_nodes: Any,
    kept: Counter[tuple[str, int]],
    small_pieces: None,
    monkeypatch: pytest.MonkeyPatch,
    coverslip: Callable[..., Any],
) -> None:
    undisturbed = _files(cohort / "features")
    killed: list[str] = []
    write = Sidecar.write

    def disturbing(self: Sidecar, index: Any, rows: Any) -> None:
        write(self, index, rows)
        if len(kept) > 10 and "encoder" not in killed and two_nodes.kill_worker("Encoding"):
            killed.append("encoder")
        elif len(kept) > 40 and "reader" not in killed and two_nodes.kill_worker("read"):
            killed.append("reader")
        elif len(kept) > 80 and "node" not in killed:
            two_nodes.kill_node()
            killed.append("node")

    monkeypatch.setattr(Sidecar, "write", disturbing)
    said = coverslip(
        *("embed", cohort / "study.toml", "--set", "features.store=far"),
        *("--engine", "ray", "--ray-address", two_nodes.address),
    )
    assert said.code == 0, said.err
    assert {"encoder", "node"} <= set(killed)
    assert _files(cohort / "far") == undisturbed
    assert set(kept.values()) == {1}, "a row that was finished was encoded again"


@pytest.mark.slow
def test_after_ctrl_c_the_next_run_does_the_rest_only(
    cohort: Path,
    two_nodes: Any,
    kept: Counter[tuple[str, int]],
    small_pieces: None,
    monkeypatch: pytest.MonkeyPatch,
    coverslip: Callable[..., Any],
) -> None:
    undisturbed = _files(cohort / "features")
    far = ("embed", cohort / "study.toml", "--set", "features.store=far", "--engine", "ray")
    far += ("--ray-address", two_nodes.address)
    write = Sidecar.write

    def pressing(self: Sidecar, index: Any, rows: Any) -> None:
        write(self, index, rows)
        if len(kept) > 60:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Sidecar, "write", pressing)
        said = coverslip(*far)
    assert said.code == 130
    assert "Interrupted" in said.err
    assert coverslip(*far).code == 0
    assert _files(cohort / "far") == undisturbed
    assert set(kept.values()) == {1}


# Wrong addresses are told at once


@pytest.fixture
def strange_port() -> Iterator[int]:
    """A port where something answers that is no Ray cluster."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
        server.close()
        thread.join(timeout=1)


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("head", "is not HOST:PORT or auto"),
        ("ray://head:10001", "is not HOST:PORT or auto"),
        ("127.0.0.1:9", "There is no Ray cluster at 127.0.0.1:9: Connection refused"),
        ("nowhere.invalid:6379", "There is no Ray cluster at nowhere.invalid:6379"),
        ("127.0.0.1:{strange}", "is no Ray cluster"),
    ],
)
def test_a_wrong_address_is_told_with_the_way_out(
    address: str, named: str, strange_port: int, cohort: Path, coverslip: Callable[..., Any]
) -> None:
    address = address.format(strange=strange_port)
    said = coverslip("train", cohort / "study.toml", "--engine", "ray", "--ray-address", address)
    assert said.code == 2
    assert named in said.err
    assert "leave --ray-address out" in said.err


def test_an_address_without_ray_is_refused(cohort: Path, coverslip: Callable[..., Any]) -> None:
    said = coverslip("train", cohort / "study.toml", "--ray-address", "auto")
    assert said.code == 2
    assert "Add --engine ray" in said.err


def test_without_the_extra_the_command_that_installs_it_is_told(
    cohort: Path, coverslip: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "coverslip.recipes.engines.ray", raising=False)
    said = coverslip("train", cohort / "study.toml", "--engine", "ray")
    assert said.code == 2
    assert 'pip install "coverslip[ray]"' in said.err


def test_an_unknown_engine_gives_the_nearest(cohort: Path, coverslip: Callable[..., Any]) -> None:
    said = coverslip("embed", cohort / "study.toml", "--engine", "rey")
    assert said.code == 2
    assert "Did you mean 'ray'?" in said.err
