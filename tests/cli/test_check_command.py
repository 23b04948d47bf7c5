import pytest
import typer
from typer.testing import CliRunner

from fallback_plugin.cli.check import check_command

CONFIG = """{
  "fallback_models": ["g/1", "g/2"],
  "agents": {
    "plan": {"fallback_models": ["p/1", "q/2", "p/1"]},
    "Build": {"enabled": false},
    "title": {"timeout_seconds": 5}
  }
}"""


@pytest.fixture
def check(tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "home"))

    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    app = typer.Typer()
    app.command()(check_command)

    def run(*arguments):
        return CliRunner().invoke(app, list(map(str, arguments)))

    return run


def test_the_file_in_force_and_the_chain_of_each_agent(check, tmp_path):
    path = tmp_path / ".opencode/opencode-fallback.jsonc"
    path.parent.mkdir()
    path.write_text(CONFIG)

    result = check("--directory", tmp_path)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{path} is in force",
        "  Build        disabled",
        "  plan         p/1 → q/2",
        "  title        g/1 → g/2",
        "  (any other)  g/1 → g/2",
        "An agent without a chain of its own here may have one in the host's own configuration.",
    ]
    assert result.stderr == (
        f'warning: {path}:4:48: agents.plan.fallback_models[2]: "p/1" stands in the chain already; left out\n'
    )


def test_without_a_file(check, tmp_path):
    result = check("--directory", tmp_path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[:2] == [
        "no configuration file: the defaults are in force",
        "  (any other)  no fallback",
    ]


def test_what_is_wrong_goes_to_the_error_stream_with_exit_2(check, tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('enabled = 1\nfallback_models = ["gpt-5"]\n')

    result = check("--config", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        f"{path}:1:11: enabled: expected true or false, found 1",
        f'{path}:2:20: fallback_models[0]: expected "provider/model", found "gpt-5"',
    ]


def test_a_named_file_that_is_missing(check, tmp_path):
    result = check("--config", tmp_path / "none.json")
    assert result.exit_code == 2
    assert result.stderr == f"{tmp_path / 'none.json'}: can't be read: No such file or directory\n"
