"""The files under deploy/ load as they are, and start processes with options that Flower has."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from flwr.superlink.main import create_app

from app.deploy import processes
from app.deploy.folder import Deployment
from app.superlink import scripts
from tests.app.deployed_files import invoke, made, parsed

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "fedkeras"}
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
LONGEST_OFFLINE = 60  # s that a killed SuperNode is taken for online
NODE_CONFIG = 'client-id="east" data-path="/data/east.npz"'
VARIABLES = {"SUPERLINK": "fl.example.org:9092", "NODE_CONFIG": NODE_CONFIG}


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return made(tmp_path_factory.mktemp("deployed"), "east", "west")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    commands: list[list[str]] = []
    monkeypatch.setattr(processes, "become", commands.append)
    monkeypatch.setattr(processes, "check_server", lambda address, authority: "")
    return commands


def check_started(command: list[str], deployment: Deployment, folder: Path, started: list[list[str]]) -> None:
    """Run the command with the files of ``folder``: what it starts has Flower's options, TLS and keys."""
    assert command[0] == "deploy"
    result = invoke(command[1], folder, *command[3:])
    assert result.exit_code == 0, result.output
    given = parsed(started[-1])
    assert not given.insecure
    if command[1] == "superlink":
        assert given.enable_supernode_auth and given.ssl_keyfile == str(deployment.server.key)
        assert given.isolation == "process" and given.superexec_auth_secret_file and given.host == "127.0.0.1"
        assert given.port == 8000 and given.database
    elif command[1] == "superexec":
        assert given.superexec_auth_secret_file and given.root_certificates
        assert given.runtime_api_address == "127.0.0.1:8000"
    else:
        assert given.auth_supernode_private_key and given.root_certificates
        assert given.superlink == VARIABLES["SUPERLINK"] and given.node_config.startswith('client-id="')


def mounted(service: dict[str, Any], target: str) -> str:
    """What a service sees as this folder; ``${NAME:-default}`` stays as it is."""
    found = [volume.split(":") for volume in service["volumes"] if volume.split(":")[1] == target]
    assert len(found) == 1 and found[0][2:] == ["ro"]
    return str(found[0][0])


@pytest.mark.parametrize("name", sorted(set(OURS) - {"pod", "operator"}))
def test_services_of_the_compose_file(deployment: Deployment, name: str, started: list[list[str]]) -> None:
    service = OURS[name]
    folder = deployment.folder / mounted(service, "/secrets").removeprefix("./deployment/")
    assert folder.is_dir()
    command = [re.sub(r"\$\{\w+:-(.*)\}", r"\1", str(word)) for word in service["command"]]
    check_started(command, deployment, folder, started)


def test_all_that_compose_mounts_is_there() -> None:
    volumes = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())]
    for source in {volume for volume in volumes if volume.startswith("./") and "deployment" not in volume}:
        assert (DEPLOY / source).exists(), source
    assert {volume for volume in volumes if volume[0] not in "./$"} == set(COMPOSE["volumes"])
    assert (DEPLOY / OURS["pod"]["build"]["context"] / OURS["pod"]["build"]["dockerfile"]).is_file()


def test_nodes_reach_the_proxy_alone() -> None:
    """Only the pod publishes ports: the proxy's to everybody, and none to others than this machine beside it."""
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["pod"]
    public = [port for port in SERVICES["pod"]["ports"] if not port.startswith("127.0.0.1:")]
    assert public == ["9092:9092"] and "listen 9092 ssl;" in (DEPLOY / "nginx.conf").read_text()
    nodes = {name for name, service in SERVICES.items() if service.get("profiles") == ["nodes"]}
    shared = {name for name, service in SERVICES.items() if service.get("network_mode") == "service:pod"}
    assert nodes == {"east", "west"} and shared == set(SERVICES) - nodes - {"pod"}


def test_nobody_but_the_node_has_its_key_and_no_container_the_authoritys() -> None:
    mounts = {
        name: [volume.split(":")[0] for volume in service.get("volumes", ())] for name, service in SERVICES.items()
    }
    holders = {name for name, sources in mounts.items() if any("nodes" in source for source in sources)}
    assert holders == {"east", "west", "operator"}
    assert all(
        "authority" not in source and source != "./deployment" for sources in mounts.values() for source in sources
    )


def unit(file: Path) -> configparser.SectionProxy:
    """The service section of a unit; a key that stands in it twice ends the test."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(file.read_text(encoding="utf-8"))
    assert parser["Unit"]["StartLimitIntervalSec"] == "0", "systemd would give up after some restarts"
    return parser["Service"]


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.stem)
def test_units(deployment: Deployment, file: Path, started: list[list[str]]) -> None:
    service = unit(file)
    words = shlex.split(service["ExecStart"].replace("%i", "east"))
    assert Path(words[0]).name == "fedkeras"
    command = [VARIABLES[word[2:-1]] if word.startswith("${") else word for word in words[1:]]
    folder = deployment.folder / Path(command[2]).relative_to("/etc/fedkeras")
    check_started(command, deployment, folder, started)
    assert service["Restart"] == "always"
    assert int(service["RestartSec"]) > (LONGEST_OFFLINE if command[1] == "supernode" else 0)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze to verify units")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for file in UNITS:
        text = file.read_text(encoding="utf-8").replace("/opt/fedkeras/.venv/bin", str(scripts()))
        (tmp_path / file.name.replace("@.", "@east.")).write_text(text.replace("User=fedkeras\n", ""))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *sorted(tmp_path.iterdir())],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def nginx_blocks(text: str) -> dict[str, Any]:
    """nginx's file as nested dicts: a directive's name and arguments to its block, or to None where it has none."""
    tokens = iter(re.findall(r'"(?:\\.|[^"])*"|[{};]|[^\s{};]+', re.sub(r"(^|\s)#.*", "", text)))

    def block() -> dict[str, Any]:
        found: dict[str, Any] = {}
        words: list[str] = []
        for token in tokens:
            if token == "}":
                assert not words
                return found
            if token in ("{", ";"):
                name = " ".join(words)
                assert name not in found
                found[name], words = (block() if token == "{" else None), []
            else:
                words.append(token)
        assert not words
        return found

    return block()


def test_the_proxy_speaks_tls_on_both_sides_and_knows_whom_it_speaks_to(deployment: Deployment) -> None:
    http = nginx_blocks((DEPLOY / "nginx.conf").read_text())["http"]
    server = http["server"]
    assert [name for name in server if name.startswith("listen")] == ["listen 9092 ssl"]
    fleet = next(block for name, block in server.items() if name.startswith("location ~"))
    assert "proxy_ssl_verify on" in fleet and "proxy_ssl_name localhost" in fleet
    assert "proxy_pass https://superlink/v1/fleet/$1" in fleet and "limit_except POST" in fleet
    assert next(iter(http["upstream superlink"])) == "server 127.0.0.1:8000"
    for name in [*server, *fleet]:
        if path := re.search(r"/etc/fedkeras/server/(\S+)", name):
            assert (deployment.server.folder / path[1]).is_file()


def test_the_proxy_lets_the_fleet_api_through_and_nothing_else() -> None:
    """Against all that the installed SuperLink serves."""
    server = nginx_blocks((DEPLOY / "nginx.conf").read_text())["http"]["server"]
    locations = [name.split(maxsplit=1)[1] for name in server if name.startswith("location")]
    assert (
        len(locations) == 2
        and locations[1] == "/"
        and any(word.startswith("return 403") for word in server["location /"])
    )
    allowed = re.compile(locations[0].removeprefix("~ "))
    paths = set(create_app().openapi()["paths"])
    fleet = {path for path in paths if path.startswith("/v1/fleet/")}
    assert len(fleet) >= 12 and {"/v1/control/start-run", "/v1/control/register-node"} < paths - fleet
    assert {path for path in paths if allowed.search(path)} == fleet
    for path in (
        "/v1/fleet/",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/a/b",
        "/x/v1/fleet/get-run",
        "/V1/FLEET/get-run",
    ):
        assert not allowed.search(path)


def test_grafana_finds_its_data_and_its_dashboard() -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    source = yaml.safe_load((folder / "datasources" / "fedkeras.yaml").read_text())["datasources"][0]
    provider = yaml.safe_load((folder / "dashboards" / "fedkeras.yaml").read_text())["providers"][0]
    listening = next(word for word in SERVICES["prometheus"]["command"] if word.startswith("--web.listen-address="))
    assert source["type"] == "prometheus" and source["url"] == "http://" + listening.partition("=")[2]
    targets = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]
    assert f"{provider['options']['path']}/fedkeras.json" in targets


def test_the_image_has_all_that_the_project_is_built_and_bundled_from() -> None:
    """Flower refuses a pattern of what to leave out that matches nothing."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = {word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]}
    allowed = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"}
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["tool"]
    packages = project["hatch"]["build"]["targets"]["wheel"]["packages"]
    left_out = [pattern.removeprefix("/").removesuffix("/**") for pattern in project["flwr"]["app"]["fab-exclude"]]
    assert copied == allowed == {"pyproject.toml", "uv.lock", "README.md", "LICENSE", *packages, *left_out}
    assert all((DEPLOY.parent / name).exists() for name in copied)
