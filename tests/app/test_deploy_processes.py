"""Flower's processes as `fedkeras deploy` starts them: the options are Flower's, TLS and keys there unless refused."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from app.deploy import connection, processes
from app.deploy.folder import Deployment
from app.errors import UserError
from app.superlink import Connection, find_connection
from tests.app.deployed_files import certified, invoke, made, parsed, serving

NOBODY = "127.0.0.1:1"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return made(tmp_path_factory.mktemp("deployed"), "east")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that this process would have become."""
    commands: list[list[str]] = []
    monkeypatch.setattr(processes, "become", commands.append)
    return commands


def test_a_superlink_speaks_tls_and_asks_nodes_for_keys(deployment: Deployment, started: list[list[str]]) -> None:
    result = invoke("superlink", deployment.server.folder, "--port", "18000", "--database", "a b.db")
    given, files = parsed(started[0]), deployment.server
    assert (given.insecure, given.enable_supernode_auth) == (False, True)
    assert (given.ssl_certfile, given.ssl_keyfile) == (str(files.certificate), str(files.key))
    assert given.ssl_ca_certfile == str(files.authority)
    assert (given.port, given.database, given.isolation) == (18000, "a b.db", "subprocess")
    assert given.superexec_auth_secret_file is None and result.output == ""


def test_superlink_and_superexec_apart_share_a_secret(deployment: Deployment, started: list[list[str]]) -> None:
    invoke("superlink", deployment.server.folder, "--isolation", "process")
    invoke("superexec", deployment.server.folder, "--superlink", NOBODY)
    superlink, superexec = map(parsed, started)
    assert superlink.isolation == "process" and superexec.runtime_api_address == NOBODY
    assert superlink.superexec_auth_secret_file == superexec.superexec_auth_secret_file is not None
    assert superexec.root_certificates == str(deployment.server.authority) and not superexec.insecure


def test_a_supernode_has_its_key_and_knows_whom_to_trust(deployment: Deployment, started: list[list[str]]) -> None:
    node, config = deployment.node("east"), 'client-id="east" data-path="a b.npz"'
    invoke("supernode", node.folder, "--superlink", NOBODY, "--node-config", config, "--port", "18001")
    given = parsed(started[0])
    assert (given.insecure, given.superlink) == (False, NOBODY)
    assert given.auth_supernode_private_key == str(node.key) and given.root_certificates == str(node.authority)
    assert (given.node_config, given.port) == (config, 18001)


def test_without_tls_only_by_an_option_that_warns(deployment: Deployment, started: list[list[str]]) -> None:
    server, node = deployment.server.folder, deployment.node("east").folder
    results = [
        invoke("superlink", server, "--insecure"),
        invoke("superexec", server, "--insecure"),
        invoke("supernode", node, "--superlink", NOBODY, "--insecure"),
    ]
    assert all("WARNING: --insecure: no TLS" in result.stderr for result in results)
    superlink, superexec, supernode = map(parsed, started)
    assert superlink.insecure and superexec.insecure and supernode.insecure
    assert not superlink.enable_supernode_auth and superlink.ssl_keyfile is None
    assert supernode.root_certificates is None is supernode.auth_supernode_private_key


def test_a_server_of_another_authority_gets_no_supernode(
    deployment: Deployment, started: list[list[str]], tmp_path: Path
) -> None:
    with serving(certified(made(tmp_path), "127.0.0.1")) as server:
        result = invoke("supernode", deployment.node("east").folder, "--superlink", server.address)
    assert isinstance(result.exception, UserError) and "not to be trusted" in str(result.exception)
    assert started == [] and server.requests == []


@pytest.mark.parametrize("name", ["server.key", "server.crt", "ca.crt"])
def test_a_superlink_does_not_start_without_its_files(tmp_path: Path, started: list[list[str]], name: str) -> None:
    server = made(tmp_path).server
    (server.folder / name).unlink()
    result = invoke("superlink", server.folder)
    assert isinstance(result.exception, UserError) and f"{name} cannot be read" in str(result.exception)
    assert started == []


def test_keys_that_others_may_read_start_nothing(tmp_path: Path, started: list[list[str]]) -> None:
    deployment = made(tmp_path, "east")
    for secret in (deployment.server.key, deployment.server.superexec_secret, deployment.node("east").key):
        secret.chmod(0o604)
    for arguments in (
        ("superlink", deployment.server.folder),
        ("superexec", deployment.server.folder),
        ("supernode", deployment.node("east").folder, "--superlink", NOBODY),
    ):
        result = invoke(*arguments)
        assert isinstance(result.exception, UserError) and "chmod 600" in str(result.exception)
    assert started == []


def test_a_process_becomes_flowers_with_the_runs_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(processes.os, "execve", lambda *given: seen.append(given))
    processes.become(["flower-superlink", "--insecure"])
    path, arguments, environment = seen[0]
    assert path.is_file() and arguments == [str(path), "--insecure"]
    assert environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
    return tmp_path / "flower" / "config.toml"


def superlinks(file: Path) -> dict[str, Any]:
    return dict(tomllib.loads(file.read_text())["superlink"])


def test_a_connection_beside_flowers_own(deployment: Deployment, home: Path) -> None:
    result = invoke("connect", deployment.folder, NOBODY)
    assert "Nobody answers" in result.output and "'fedkeras run mine'" in result.output
    authority = deployment.authority.certificate
    assert superlinks(home)["mine"] == {"address": NOBODY, "root-certificates": str(authority)}
    assert find_connection(None).managed and find_connection("mine") == Connection("mine", False, NOBODY, authority)
    before = home.read_text()
    assert invoke("connect", deployment.folder, NOBODY).exit_code == 0
    assert home.read_text() == before


def test_what_a_user_wrote_stays(deployment: Deployment, home: Path) -> None:
    home.parent.mkdir()
    home.write_text('# mine alone\n[superlink]\ndefault = "a"\n[superlink.a]\naddress = "x:1"\ninsecure = true')
    before = home.read_text()
    connection.connect(deployment.server.folder, NOBODY, "b")
    assert home.read_text().startswith(before)
    with pytest.raises(UserError, match="has another connection 'a' already"):
        connection.connect(deployment.server.folder, NOBODY, "a")
    assert set(superlinks(home)) == {"default", "a", "b"}


@pytest.mark.parametrize(
    ("text", "said"),
    [("superlink = {}", "takes no table"), ("superlink = 1", "takes no table"), ("[", "cannot be read")],
)
def test_files_that_take_no_connection_stay_as_they_are(
    deployment: Deployment, home: Path, text: str, said: str
) -> None:
    home.parent.mkdir()
    home.write_text(text)
    with pytest.raises(UserError, match=said):
        connection.connect(deployment.server.folder, NOBODY, "b")
    assert home.read_text() == text


@pytest.mark.parametrize("name", ["", "default", "a.b", "a b", 'a"]'])
def test_names_that_no_connection_can_have(deployment: Deployment, home: Path, name: str) -> None:
    with pytest.raises(UserError, match="--name is"):
        connection.connect(deployment.server.folder, NOBODY, name)
    assert not home.exists()


@pytest.mark.parametrize("folder", ["", "authority", "server", "nodes/east"])
def test_any_folder_with_the_certificate_will_do(deployment: Deployment, home: Path, folder: str) -> None:
    connection.connect(deployment.folder / folder, NOBODY, "b")
    named = Path(superlinks(home)["b"]["root-certificates"])
    assert named.is_absolute() and named.read_bytes() == deployment.authority.certificate.read_bytes()


def test_a_run_goes_to_no_server_of_another_authority(deployment: Deployment, tmp_path: Path) -> None:
    with serving(certified(made(tmp_path), "127.0.0.1")) as server, pytest.raises(UserError, match="not to be trusted"):
        connection.look(Connection("a", False, server.address, deployment.authority.certificate))
    assert server.requests == []


def test_what_a_run_says_of_where_it_goes(deployment: Deployment) -> None:
    with serving(certified(deployment, "127.0.0.1")) as server:
        trusted = Connection("a", False, server.address, deployment.authority.certificate)
        assert connection.look(trusted).endswith("answers.")
    assert "WARNING: the connection 'a' is insecure" in connection.look(Connection("a", False, NOBODY, insecure=True))
    assert connection.look(Connection("a", False, NOBODY)) == ""
