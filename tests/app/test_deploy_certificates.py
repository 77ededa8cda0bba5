"""`fedkeras deploy init` and `renew`, checked with OpenSSL, OpenSSH and Flower's own readers."""

from __future__ import annotations

import shutil
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.cli.supernode.register import try_load_public_key
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from typer.testing import CliRunner

from app.cli import commands
from app.deploy.folder import Deployment, write_new
from app.deploy.initialise import initialise, renew
from app.errors import UserError
from tests.app.deployed_files import certified, made

SECRETS = {"authority/ca.key", "server/server.key", "server/superexec.secret", "nodes/east/node.key"}
PUBLIC = {
    ".gitignore",
    "authority/ca.crt",
    "server/ca.crt",
    "server/server.crt",
    "nodes/east/ca.crt",
    "nodes/east/node.pub",
}


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    folder = tmp_path_factory.mktemp("deployed") / "fl"
    list(initialise(folder, ["FL.example.org", "10.1.2.3", "fl.example.org"], ["east"], 90))
    return Deployment(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def openssl(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)


def verified(deployment: Deployment, certificate: Path, *arguments: str) -> bool:
    command = ("verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", deployment.server.authority, *arguments)
    return openssl(*command, certificate).returncode == 0


needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to compare with")


def test_what_is_made_and_who_may_read_it(deployment: Deployment) -> None:
    modes = {name: stat.S_IMODE((deployment.folder / name).stat().st_mode) for name in contents(deployment.folder)}
    assert modes == {name: 0o600 if name in SECRETS else 0o644 for name in SECRETS | PUBLIC}
    for folder in ("authority", "server", "nodes/east"):
        assert stat.S_IMODE((deployment.folder / folder).stat().st_mode) == 0o700


def test_what_is_there_stays_and_is_said_and_git_sees_nothing_of_it(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    asked = ["deploy", "init", str(tmp_path / "fl"), "--host", "fl.example.org", "--node", "east"]
    first = CliRunner().invoke(commands, asked)
    before = contents(tmp_path / "fl")
    again = CliRunner().invoke(commands, asked)
    assert "Made " in first.output and again.output == f"All of it is in {tmp_path / 'fl'} already.\n"
    assert (first.exit_code, again.exit_code) == (0, 0) and contents(tmp_path / "fl") == before
    seen = subprocess.run(["git", "status", "--short"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert seen.stdout == ""


def test_no_keys_are_put_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "theses.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files and no deployment: name a new folder"):
        list(initialise(tmp_path, ["fl.example.org"], ["east"], 90))
    assert [file.name for file in tmp_path.iterdir()] == ["theses.txt"]


@needs_openssl
def test_openssl_trusts_the_server_by_its_names_only(deployment: Deployment) -> None:
    server = deployment.server.certificate
    for name in ("fl.example.org", "localhost"):
        assert verified(deployment, server, "-verify_hostname", name)
    for address in ("10.1.2.3", "127.0.0.1", "::1"):
        assert verified(deployment, server, "-verify_ip", address)
    assert not verified(deployment, server, "-verify_hostname", "example.org")
    assert not verified(deployment, server, "-verify_ip", "10.1.2.4")


@needs_openssl
def test_openssl_sees_expiry_and_another_authority(deployment: Deployment, tmp_path: Path) -> None:
    assert verified(deployment, certified(deployment, "a.example", days_ago=6))
    assert not verified(deployment, certified(deployment, "a.example", days_ago=8))
    assert not verified(deployment, made(tmp_path).server.certificate)


@needs_openssl
def test_a_server_cannot_sign_for_others(deployment: Deployment) -> None:
    printed = openssl("x509", "-in", deployment.server.certificate, "-noout", "-text").stdout
    assert "CA:FALSE" in printed and "Certificate Sign" not in printed
    printed = openssl("x509", "-in", deployment.authority.certificate, "-noout", "-text").stdout
    assert "CA:TRUE, pathlen:0" in printed


def test_how_long_they_are_valid(deployment: Deployment) -> None:
    now = datetime.now(UTC)
    for file, days in ((deployment.authority.certificate, 3650), (deployment.server.certificate, 90)):
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
        assert certificate.not_valid_before_utc < now
        assert abs(certificate.not_valid_after_utc - now - timedelta(days=days)) < timedelta(minutes=5)


def test_a_server_is_not_trusted_longer_than_its_authority(tmp_path: Path) -> None:
    deployment = made(tmp_path)
    list(renew(tmp_path, [], 99999))
    ends = [
        x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc
        for file in (deployment.server.certificate, deployment.authority.certificate)
    ]
    assert timedelta() <= ends[1] - ends[0] <= timedelta(days=1)


def test_flower_reads_the_keys_of_a_node(deployment: Deployment) -> None:
    node = deployment.node("east")
    key = load_ssh_private_key(node.key.read_bytes(), None)  # as flower-supernode does
    assert isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp384r1"
    assert try_load_public_key(node.public_key) == public_key_to_bytes(key.public_key())


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen to compare with")
def test_ssh_keygen_derives_the_same_public_key(deployment: Deployment) -> None:
    node = deployment.node("east")
    derived = subprocess.run(["ssh-keygen", "-y", "-f", node.key], capture_output=True, text=True, check=True).stdout
    assert node.public_key.read_text().startswith(derived.strip())


def test_nothing_is_overwritten_and_what_lacks_is_made(tmp_path: Path) -> None:
    deployment = made(tmp_path, "east")
    before = contents(tmp_path)
    deployment.node("east").public_key.unlink()
    told = list(initialise(tmp_path, [], ["east", "west"], 1))
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {f"nodes/west/{name}" for name in ("ca.crt", "node.key", "node.pub")}
    assert [line.split()[1].rstrip(":") for line in told] == [
        str(file)
        for file in (
            deployment.node("east").public_key,
            deployment.node("west").key,
            deployment.node("west").public_key,
        )
    ]
    assert before["nodes/east/node.key"] != after["nodes/west/node.key"]
    assert list(initialise(tmp_path, [], ["east", "west"], 1)) == []


def test_a_new_file_never_takes_the_place_of_another(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("old")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "key", b"new", 0o600)
    assert contents(tmp_path) == {"key": b"old"}


def test_renewing_changes_the_certificate_alone(tmp_path: Path) -> None:
    deployment = made(tmp_path, "east")
    before = contents(tmp_path)
    list(renew(tmp_path, [], 60))
    after = contents(tmp_path)
    assert {name for name in before if after[name] != before[name]} == {"server/server.crt"}
    old, new = (x509.load_pem_x509_certificate(files["server/server.crt"]) for files in (before, after))
    assert (old.public_key(), old.extensions.get_extension_for_class(x509.SubjectAlternativeName)) == (
        new.public_key(), new.extensions.get_extension_for_class(x509.SubjectAlternativeName),
    )  # fmt: skip
    assert new.not_valid_after_utc > old.not_valid_after_utc and old.serial_number != new.serial_number
    assert "for new.example, localhost" in next(iter(renew(tmp_path, ["new.example"], 60)))
    assert list(initialise(tmp_path, ["new.example"], [], 1)) == []
    assert stat.S_IMODE(deployment.server.certificate.stat().st_mode) == 0o644


def test_nodes_are_added_without_the_authoritys_key(tmp_path: Path) -> None:
    deployment = made(tmp_path)
    deployment.authority.key.unlink()
    assert len(list(initialise(tmp_path, [], ["east"], 1))) == 2
    with pytest.raises(UserError, match=r"ca.key cannot be read"):
        list(renew(tmp_path, [], 1))
    assert not deployment.authority.key.exists()


@pytest.mark.parametrize(
    ("hosts", "nodes", "said"),
    [
        ([], ["east"], "give --host"),
        (["https://fl.example"], [], "--host is 'https://fl.example'"),
        (["fl.example:8000"], [], "without a port"),
        (["*.example"], [], "must be a host name"),
        (["1.2.3"], [], "must be a host name"),
        (["fl.example\n"], [], "must be a host name"),
        (["fl.example"], ["../server"], "A node is to be called '../server'"),
        (["fl.example"], [""], "A node is to be called ''"),
    ],
)
def test_unfit_names_are_refused_before_anything_is_made(
    tmp_path: Path, hosts: list[str], nodes: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said.replace("*", r"\*").replace("?", r"\?")):
        list(initialise(tmp_path, hosts, nodes, 1))
    assert contents(tmp_path) == {}


def test_a_host_that_the_certificate_lacks(tmp_path: Path) -> None:
    made(tmp_path)
    with pytest.raises(UserError, match=r"is not for other\.example: 'fedkeras deploy renew'"):
        list(initialise(tmp_path, ["other.example"], ["east"], 1))
    assert not (tmp_path / "nodes").exists()


def test_another_authority_is_not_mixed_in(tmp_path: Path) -> None:
    first, second = made(tmp_path / "a"), made(tmp_path / "b")
    first.server.authority.write_bytes(second.server.authority.read_bytes())
    with pytest.raises(UserError, match="is another authority's than"):
        list(initialise(first.folder, [], ["east"], 1))
    first.authority.key.unlink()
    second.authority.key.rename(first.authority.key)
    with pytest.raises(UserError, match="is not the key of"):
        list(renew(first.folder, [], 1))


def test_damaged_and_open_keys_are_refused_without_their_contents(tmp_path: Path) -> None:
    deployment = made(tmp_path)
    deployment.authority.key.chmod(0o640)
    with pytest.raises(UserError, match=r"others than its owner may read.*chmod 600"):
        list(renew(tmp_path, [], 1))
    deployment.authority.key.chmod(0o600)
    deployment.authority.key.write_text("hunter2")
    with pytest.raises(UserError, match="is not a key") as caught:
        list(renew(tmp_path, [], 1))
    assert "hunter2" not in str(caught.value) and caught.value.__cause__ is None
    deployment.server.certificate.write_text("-----BEGIN CERTIFICATE-----")
    with pytest.raises(UserError, match="is not a certificate"):
        list(renew(tmp_path, [], 1))


def test_the_commands_tell_what_they_made_and_no_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands(["deploy", "init", str(tmp_path), "--host", "fl.example", "--node", "east"], standalone_mode=False)
    commands(["deploy", "renew", str(tmp_path), "--days", "7"], standalone_mode=False)
    printed = capsys.readouterr().out
    assert "valid until" in printed and "for fl.example, localhost" in printed and "Copy it to the server" in printed
    for name, content in contents(tmp_path).items():
        if name in SECRETS and name.endswith(".key"):
            assert not set(content.decode().splitlines()[1:-1]) & set(printed.split())
    assert "PRIVATE KEY" not in printed
