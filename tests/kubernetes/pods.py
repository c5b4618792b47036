"""A container of a rendered manifest as a process of this machine, as a node would start it.

The image's entrypoint with the manifest's arguments, the image's and the manifest's variables and nothing of the
test's, the volumes as directories in the place of their paths. Where the test is root, the process has the manifest's
user, and every file but those of its volumes is read-only to it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
# /root, where a test's interpreter may lie, is closed to others: the process may read everything, and write nothing.
READS = "-all,+dac_read_search"
# `remount` changes the mount of `/` alone, in a namespace of the process's own: what was bound before stays writable.
READ_ONLY = 'for one in $WRITABLE; do mount --bind "$one" "$one"; done; mount -o remount,ro,bind /; exec "$@"'


def image() -> tuple[list[str], dict[str, str]]:
    """The entrypoint and the variables of the image's last stage."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    last = text.replace("\\\n", " ").rpartition("\nFROM ")[2]
    [entrypoint] = re.findall(r'^ENTRYPOINT \["(.+)"\]$', last, flags=re.MULTILINE)
    variables = [
        word for line in re.findall(r"^ENV (.+)$", last, flags=re.MULTILINE) for word in line.split()
    ]
    return [entrypoint], dict(word.split("=", 1) for word in variables)


class Pod:
    """One container of a pod's template, with the files of a node's."""

    def __init__(self, template: Mapping[str, Any], secret: Mapping[str, str], folder: Path) -> None:
        spec = template["spec"]
        [self.container] = spec["containers"]
        self.name: str = self.container["name"]
        self.grace: float = spec["terminationGracePeriodSeconds"]
        self._user: int = spec["securityContext"]["runAsUser"]
        self._places: dict[str, Path] = {}
        self._writable: list[Path] = []
        self.log = folder / "log"
        self._programs(folder / "bin")
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for mount in self.container["volumeMounts"]:
            place = folder / mount["name"]
            place.mkdir(parents=True)
            volume = volumes.pop(mount["name"])
            if "emptyDir" in volume:
                place.chmod(0o2777)  # as a node makes it: everybody's, and root's
                self._writable.append(place)
            else:
                _write(place, volume["projected"]["sources"], secret)
            self._places[mount["mountPath"]] = place
        assert not volumes, "a volume that nothing mounts"

    def start(self) -> subprocess.Popen[bytes]:
        """The container's process."""
        entrypoint, _ = image()
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self._confined([*entrypoint, *self.container["args"]]),
                env=self.environment,
                cwd=self._places["/var/lib/cohort-sync"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def answers(self, probe: str) -> bool:
        """Whether the container's probe of that name succeeds."""
        asked = self.container[probe]
        if "exec" in asked:
            done = subprocess.run(
                self._confined(asked["exec"]["command"]),
                env=self.environment,
                capture_output=True,
                timeout=asked["timeoutSeconds"],
                check=False,
            )
            return done.returncode == 0
        [port] = [
            one["containerPort"] for one in self.container["ports"] if one["name"] == asked["httpGet"]["port"]
        ]
        try:
            url = f"http://127.0.0.1:{port}{asked['httpGet']['path']}"
            with urllib.request.urlopen(url, timeout=asked["timeoutSeconds"]) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    @property
    def environment(self) -> dict[str, str]:
        """The image's variables and the container's, and where its files are on this machine."""
        _, variables = image()
        variables |= {one["name"]: one["value"] for one in self.container["env"]}
        for inside, here in self._places.items():
            variables = {name: value.replace(inside, str(here)) for name, value in variables.items()}
        return variables | {
            "PATH": f"{self._bin}:/usr/sbin:/usr/bin:/sbin:/bin",
            "FLOWER_CONF": str(DEPLOY / "flowerconfig.py"),
            "HOME": str(self._places["/var/lib/cohort-sync"]),
            "SECRETS_DIR": str(self._places["/run/secrets"]),
            "TMPDIR": str(self._places["/tmp"]),  # noqa: S108 - the container's
            "WRITABLE": " ".join(map(str, self._writable)),
        }

    def _programs(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "cohort-sync").symlink_to(Path(sys.executable).with_name("cohort-sync"))
        (folder / "cohort-sync-entrypoint").symlink_to(DEPLOY / "entrypoint.sh")
        self._bin = folder

    def _confined(self, command: list[str]) -> list[str]:
        if os.geteuid() or not (shutil.which("unshare") and shutil.which("setpriv")):
            return command
        user = str(self._user)
        return [
            *("unshare", "--mount", "--propagation", "private", "sh", "-ec", READ_ONLY, "sh"),
            *("setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--no-new-privs"),
            *("--inh-caps", READS, "--ambient-caps", READS, *command),
        ]


def _write(place: Path, sources: list[dict[str, Any]], secret: Mapping[str, str]) -> None:
    for source in sources:
        for item in source["secret"]["items"]:
            if item["key"] in secret:
                (place / item["path"]).write_text(secret[item["key"]])
            else:
                assert source["secret"].get("optional"), f"the secret has no {item['key']}"
