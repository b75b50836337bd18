"""Which files an installation comes to, without a systemd."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rqsup.errors import InstallRefused
from rqsup.supervisor.cli.units import Wish, drop_in_names, files_for, next_steps, remarks


def names(wish: Wish, systemd: int = 252) -> list[str]:
    return [unit.path.name for unit in files_for(wish, systemd)]


def test_without_wishes_it_is_the_template_the_target_and_the_settings(tmp_path: Path) -> None:
    assert names(Wish("mail", root=tmp_path)) == ["rqsup@.service", "rqsup.target", "mail.yaml"]


def test_the_unit_starts_the_program_that_was_named(tmp_path: Path) -> None:
    unit = files_for(Wish("mail", "/opt/shop/bin/rqsup", root=tmp_path), 252)[0]

    assert "ExecStart=/opt/shop/bin/rqsup run" in unit.text
    assert "env -u CREDENTIALS_DIRECTORY /opt/shop/bin/rqsup reload" in unit.text
    assert "/usr/bin/rqsup" not in unit.text


def test_the_settings_are_those_of_the_pool(tmp_path: Path) -> None:
    settings = files_for(Wish("mail", root=tmp_path), 252)[-1]

    assert yaml.safe_load(settings.text)["pool"] == "mail"


def test_a_later_systemd_gets_the_subgroup_with_the_cgroups(tmp_path: Path) -> None:
    wish = Wish("mail", drop_ins=("cgroups",), root=tmp_path)

    assert "cgroups-subgroup.conf" not in names(wish, 253)
    assert "cgroups-subgroup.conf" in names(wish, 254)


def test_a_drop_in_for_a_later_systemd_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InstallRefused, match="the drop-in backoff needs systemd 254, this is 252"):
        files_for(Wish("mail", drop_ins=("backoff",), root=tmp_path), 252)


def test_a_user_makes_the_drop_in_of_that_user(tmp_path: Path) -> None:
    (drop_in,) = [
        unit for unit in files_for(Wish("mail", user="web", root=tmp_path), 252) if "app-user" in unit.path.name
    ]

    assert "User=web\n" in drop_in.text
    assert "app\n" not in drop_in.text


@pytest.mark.parametrize("pool", ["", "a b", "a/b", "x" * 26, "../x", "a@b"])
def test_a_name_that_is_none_is_refused(pool: str) -> None:
    with pytest.raises(InstallRefused, match="is no name for a service's pool"):
        files_for(Wish(pool), 252)


def test_what_is_there_decides_what_happens(tmp_path: Path) -> None:
    unit, target, settings = files_for(Wish("mail", root=tmp_path), 252)
    for file, text in ((unit, unit.text), (target, "changed"), (settings, "pool: mail\napp: [mine]\n")):
        file.path.parent.mkdir(parents=True, exist_ok=True)
        file.path.write_text(text)

    assert [file.action() for file in (unit, target, settings)] == ["unchanged", "replace", "keep"]
    assert "-changed" in target.diff()


def test_a_program_that_the_service_cannot_see_is_remarked_on() -> None:
    assert "ProtectHome" in remarks(Wish("mail", "/home/me/venv/bin/rqsup"), "/usr/bin/python3")[0]
    assert remarks(Wish("mail", "/opt/rqsup/bin/rqsup"), "/opt/python") == []


def test_the_next_steps_name_the_pool_and_its_secret() -> None:
    plain, encrypted = next_steps(Wish("mail")), next_steps(Wish("mail", drop_ins=("creds-encrypted",)))

    assert any("systemctl enable --now rqsup@mail rqsup.target" in step for step in plain)
    assert any("/etc/rqsup/mail.redis-password " in step for step in plain)
    assert any("systemd-creds encrypt" in step for step in encrypted)


def test_the_issues_drop_ins_are_all_there() -> None:
    assert {"strict", "app-user", "gpu", "cgroups", "backoff", "creds-encrypted"} <= set(drop_in_names())
    assert "cgroups-subgroup" not in drop_in_names()
