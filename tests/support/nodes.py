"""A Ray cluster of several hosts on one machine: network namespaces joined by a switch."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

BIN = Path(sys.executable).parent
PORT = 8265


def refusal() -> str:
    """Why this machine cannot have network namespaces; empty where it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "`ip` (iproute2) is not installed"
    name = f"f5-{secrets.token_hex(3)}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if tried.returncode:
        return f"no network namespace can be made: {tried.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return ""


class Host:
    """A machine with one network interface, `eth0`."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.cluster, self.address = cluster, f"10.77.0.{number}"
        self.namespace, port = f"{cluster.name}-{number}", f"port{number}"
        ip("netns", "add", self.namespace)
        ip("link", "add", port, "netns", cluster.switch, "type", "veth", "peer", "eth0", "netns", self.namespace)
        ip("-n", cluster.switch, "link", "set", port, "master", "switch", "up")
        ip("-n", self.namespace, "link", "set", "lo", "up")
        self.link("up")
        ip("-n", self.namespace, "address", "add", f"{self.address}/24", "dev", "eth0")
        ip("-n", self.namespace, "route", "add", "default", "dev", "eth0")  # so that Ray finds its own address

    def link(self, state: str) -> None:
        """`up`, or `down` as when the cable is pulled."""
        ip("-n", self.namespace, "link", "set", "eth0", state)

    def command(self, *command: str) -> list[str]:
        """The same command, on this host."""
        return ["ip", "netns", "exec", self.namespace, *command]

    def ray(self, *options: str) -> None:
        """`ray start` with so little that three of them fit on one machine."""
        own = str(self.cluster.temporary / self.address.rsplit(".")[-1])  # nodes replace each other's unpacked code
        small = ("--object-store-memory", "100000000", "--disable-usage-stats", "--temp-dir", own)
        command = self.command(str(BIN / "ray"), "start", "--node-ip-address", self.address, *small, *options)
        for _ in range(3):  # Ray gives a node 30 seconds to start, which is little on a busy machine
            done = subprocess.run(command, env=self.cluster.environment, capture_output=True, text=True, timeout=300)
            if done.returncode == 0:
                return
            self.crash()
        raise AssertionError(done.stdout + done.stderr)

    def join(self) -> None:
        """Become a node with one core."""
        self.ray("--address", f"{self.cluster.head.address}:6379", "--num-cpus", "1")

    def give_notice(self, seconds: int) -> None:
        """Have Ray told what a cloud tells of a spot instance: that this host goes in so many seconds."""
        code = (
            f"import ray; ray.init('{self.cluster.head.address}:6379', log_to_driver=False, logging_level='ERROR');"
            "print(*(f'{n[\"NodeID\"]}' for n in ray.nodes() if n['Alive'] and"
            f" n['NodeManagerAddress'] == '{self.address}'))"
        )
        found = subprocess.run(
            self.command(sys.executable, "-c", code),
            env=self.cluster.environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        notice = ("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot", "--node-id")
        within = ("--deadline-remaining-seconds", str(seconds), "--address", f"{self.cluster.head.address}:6379")
        command = self.command(str(BIN / "ray"), "drain-node", *notice, found.stdout.split()[-1], *within)
        subprocess.run(command, env=self.cluster.environment, check=True)

    def alone(self, command: str) -> subprocess.Popen:
        """A shell command with processes, a home (of root) and a `/tmp/ray` of this host's own."""
        home, users = self.home(), self.cluster.temporary / f"{self.namespace}.passwd"
        lines = Path("/etc/passwd").read_text().splitlines()
        users.write_text("".join(re.sub(r"^(root:.*:)/root:", rf"\1{home}:", line) + "\n" for line in lines))
        Path("/tmp/ray").mkdir(exist_ok=True)
        inside = f"mount -t tmpfs tmpfs /tmp/ray && mount --bind {users} /etc/passwd && {command}"
        with (self.cluster.temporary / f"{self.namespace}.log").open("w") as log:
            started = subprocess.Popen(
                self.command(
                    "unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "sh", "-c", inside
                ),
                stdout=log,
                stderr=log,
                env={**self.cluster.environment, "HOME": str(home)},
            )
        self.cluster.started.append(started)
        return started

    def home(self) -> Path:
        """The home of `alone`."""
        home = self.cluster.temporary / self.namespace
        (home / ".ssh").mkdir(parents=True, exist_ok=True)
        (home / ".bashrc").touch()
        return home

    def said(self) -> str:
        """What `alone` has said."""
        return (self.cluster.temporary / f"{self.namespace}.log").read_text()

    def serve_ssh(self, key: Path) -> None:
        """Let the owner of a key in, as root of a machine of its own."""
        shutil.copy(key.with_suffix(".pub"), self.home() / ".ssh/authorized_keys")
        settings = {"HostKey": key, "StrictModes": "no", "UsePAM": "no", "PidFile": "none"}
        options = " ".join(f"-o {name}={value}" for name, value in settings.items())
        self.alone(f"mkdir -p /run/sshd && exec /usr/sbin/sshd -D -e -f /dev/null {options}")

    def crash(self) -> None:
        """SIGKILL to everything that runs here."""
        for _ in range(50):
            found = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True)
            if not found.stdout.split():
                return
            for process in found.stdout.split():
                with suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
            time.sleep(0.1)


class Cluster:
    """A head without cores, two nodes with one core each, and a laptop that is no part of it; with a token.

    Arguments:
        folder: Where the token is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.name = f"f5-{secrets.token_hex(2)}"
        self.switch = f"{self.name}-sw"
        self.temporary = Path(tempfile.mkdtemp(prefix="f5", dir="/tmp"))  # sockets' paths must be short
        self.started: list[subprocess.Popen] = []
        self.token = folder / "token"
        self.token.touch(mode=0o600)
        self.token.write_text(secrets.token_hex(32))
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTHONPATH"))}
        self.environment = {
            **kept,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(self.temporary),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "GLOO_SOCKET_IFNAME": "eth0",
            "OMP_NUM_THREADS": "1",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "switch", "type", "bridge")
        ip("-n", self.switch, "link", "set", "switch", "up")
        self.hosts = [Host(self, number) for number in (1, 2, 3, 4)]
        self.head, *self.nodes, self.laptop = self.hosts
        self.address = f"http://{self.head.address}:{PORT}"

    def start(self) -> None:
        """Ray on the head and the nodes."""
        dashboard = ("--dashboard-host", self.head.address, "--dashboard-port", str(PORT))
        self.head.ray("--head", "--port", "6379", "--num-cpus", "0", *dashboard)
        for node in self.nodes:
            node.join()

    def crash(self) -> None:
        """SIGKILL to everything that runs on its hosts."""
        for host in self.hosts:
            host.crash()

    def remove(self) -> None:
        """Nothing is left: no process, no interface, no file."""
        self.crash()
        for process in self.started:
            process.wait()
        for namespace in (*(host.namespace for host in self.hosts), self.switch):
            ip("netns", "delete", namespace)
        shutil.rmtree(self.temporary, ignore_errors=True)


def ip(*arguments: str) -> None:
    """The command of that name."""
    subprocess.run(["ip", *arguments], check=True)
