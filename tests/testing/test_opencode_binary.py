"""Which npm package's binary is taken on which machine."""

from __future__ import annotations

import pytest

from fallback_plugin.testing import opencode_binary
from fallback_plugin.testing.opencode_binary import find_opencode, platform_packages


@pytest.mark.parametrize(
    ("system", "machine", "packages"),
    [
        ("darwin", "arm64", {"opencode-darwin-arm64"}),
        ("darwin", "x86_64", {"opencode-darwin-x64", "opencode-darwin-x64-baseline"}),
        ("linux", "aarch64", {"opencode-linux-arm64", "opencode-linux-arm64-musl"}),
        (
            "linux",
            "x86_64",
            {
                "opencode-linux-x64",
                "opencode-linux-x64-baseline",
                "opencode-linux-x64-musl",
                "opencode-linux-x64-baseline-musl",
            },
        ),
    ],
)
def test_the_packages_of_a_machine(monkeypatch, system, machine, packages):
    monkeypatch.setattr(opencode_binary.sys, "platform", system)
    monkeypatch.setattr(opencode_binary.platform, "machine", lambda: machine)

    named = platform_packages()

    assert set(named) == packages
    assert len(named) == len(packages)


def test_the_best_installed_package_wins(monkeypatch, tmp_path):
    monkeypatch.delenv("FALLBACK_PLUGIN_OPENCODE", raising=False)
    best, second, *_ = platform_packages()
    for package in (second, best):
        binary = tmp_path / package / "bin" / "opencode"
        binary.parent.mkdir(parents=True)
        binary.touch()

        assert find_opencode([tmp_path]) == binary


def test_a_named_binary_that_is_missing_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("FALLBACK_PLUGIN_OPENCODE", str(tmp_path / "gone"))

    with pytest.raises(FileNotFoundError, match=r"FALLBACK_PLUGIN_OPENCODE names .*gone"):
        find_opencode()
