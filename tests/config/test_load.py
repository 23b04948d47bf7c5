import os
from pathlib import Path

import platformdirs
import pytest

from fallback_plugin.config.document import MAX_BYTES
from fallback_plugin.config.load import ConfigSource, LoadedConfig, candidate_paths, parse
from fallback_plugin.config.schema import Settings
from fallback_plugin.errors import ConfigurationError

EXAMPLE = Path(__file__).parents[2] / "examples/opencode/opencode-fallback.jsonc"
JSON = '{"fallback_models": "%s"}'
TOML = 'fallback_models = "%s"'


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home of its own, on every platform."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(home))

    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return home


@pytest.fixture
def project(tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    return project


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def say(path, model):
    put(path, (TOML if path.suffix == ".toml" else JSON) % model)


def test_the_order_of_places(project, home):
    user = platformdirs.user_config_path("fallback-plugin", appauthor=False)
    assert user.is_relative_to(home)
    assert candidate_paths(project) == tuple(
        place / f"opencode-fallback{suffix}"
        for place in (project / ".opencode", user, home / ".config" / "opencode")
        for suffix in (".jsonc", ".json", ".toml")
    )


@pytest.mark.parametrize("first", range(9))
def test_the_first_file_that_exists_is_in_force(project, first):
    paths = candidate_paths(project)
    for number, path in enumerate(paths[first:]):
        say(path, f"a/{number}")

    loaded = ConfigSource(directory=project).load()
    assert loaded.path == paths[first]
    assert loaded.settings.fallback_models == ("a/0",)


def test_a_directory_inside_a_git_tree_has_the_trees_configuration(project, tmp_path):
    for outside in (tmp_path, project):
        say(outside / ".opencode" / "opencode-fallback.json", "a/outside")
    inner = project / "repository" / "package" / "source"
    inner.mkdir(parents=True)
    assert ConfigSource(directory=inner).load().path is None, "no git tree: nobody's parents count"

    (project / "repository" / ".git").write_text("gitdir: elsewhere")
    assert ConfigSource(directory=inner).load().path is None, "nothing beyond its top"
    for place in (inner.parents[1], inner.parent, inner):
        say(place / ".opencode" / "opencode-fallback.json", f"a/{place.name}")
        loaded = ConfigSource(directory=inner).load()
        assert loaded.settings.fallback_models == (f"a/{place.name}",)


def test_a_relative_directory_is_inside_its_git_tree_too(project, monkeypatch):
    say(project / ".opencode" / "opencode-fallback.json", "a/top")
    (project / ".git").mkdir()
    (project / "package").mkdir()
    monkeypatch.chdir(project / "package")

    assert ConfigSource(directory=Path()).load().settings.fallback_models == ("a/top",)


def test_a_named_file_is_the_only_one(project):
    for path in candidate_paths(project):
        say(path, "a/elsewhere")

    named = put(project / "mine.toml", TOML % "a/mine")
    source = ConfigSource(directory=project, config=named)
    assert source.candidates() == (named,)
    assert source.load() == LoadedConfig(settings=Settings(fallback_models=("a/mine",)), path=named)


def test_without_a_file_the_defaults_hold(project):
    assert ConfigSource(directory=project).load() == LoadedConfig(settings=Settings(), path=None)


def test_overrides_lie_over_the_file_and_the_file_over_the_defaults(project):
    say(project / ".opencode/opencode-fallback.json", "a/file")
    overrides = {"fallback_models": ["a/over"], "timeout_seconds": 5}
    loaded = ConfigSource(directory=project, overrides=overrides).load()
    assert loaded.settings == Settings(fallback_models=("a/over",), timeout_seconds=5)
    assert ConfigSource(directory=project).load().settings == Settings(fallback_models=("a/file",))


def test_an_override_makes_a_wrong_value_of_the_file_harmless(project):
    put(project / ".opencode/opencode-fallback.json", '{"fallback_models": [{}, {}], "enabled": false}')
    loaded = ConfigSource(directory=project, overrides={"fallback_models": "a/b"}).load()
    assert loaded.settings == Settings(fallback_models=("a/b",), enabled=False)


def test_a_second_file_beside_the_one_in_force_is_told(project):
    paths = candidate_paths(project)
    for path in (*paths[:3], paths[7]):
        say(path, "a/b")

    assert ConfigSource(directory=project).load().warnings == (
        f"{paths[1]}: not read, because opencode-fallback.jsonc beside it comes first",
        f"{paths[2]}: not read, because opencode-fallback.jsonc beside it comes first",
    )


def test_repeated_routes_are_left_out_and_told(project):
    path = put(
        project / ".opencode/opencode-fallback.jsonc",
        '{"fallback_models": ["a/1", "b/2", "a/1"],\n "agents": {"build": {"fallback_models": ["c/3",\n"c/3"]}, "x": {}}}',
    )
    loaded = ConfigSource(directory=project).load()
    assert loaded.settings.fallback_models == ("a/1", "b/2")
    assert loaded.settings.agents["build"].fallback_models == ("c/3",)
    assert loaded.warnings == (
        f'{path}:1:36: fallback_models[2]: "a/1" stands in the chain already; left out',
        f'{path}:3:1: agents.build.fallback_models[1]: "c/3" stands in the chain already; left out',
    )


def error(source):
    with pytest.raises(ConfigurationError) as raised:
        source.load()

    return str(raised.value)


def named_error(path):
    return error(ConfigSource(directory=path.parent, config=path))


def test_a_named_file_that_is_missing(project):
    path = project / "none.json"
    assert named_error(path) == f"{path}: can't be read: No such file or directory"


def test_a_directory_in_the_place_of_the_file(project):
    path = project / ".opencode/opencode-fallback.jsonc"
    path.mkdir(parents=True)
    assert error(ConfigSource(directory=project)) == f"{path}: expected a regular file"


def test_a_pipe_is_not_waited_for(project):
    path = project / "pipe.json"
    os.mkfifo(path)
    assert named_error(path) == f"{path}: expected a regular file"


def test_a_broken_link_is_an_error_and_does_not_hide_the_project(project, home):
    say(home / ".config/opencode/opencode-fallback.json", "a/user")
    path = project / ".opencode/opencode-fallback.json"
    path.parent.mkdir()
    path.symlink_to(project / "gone")
    assert error(ConfigSource(directory=project)) == f"{path}: can't be read: No such file or directory"


def test_a_link_is_followed(project):
    target = put(project / "dotfiles/x", JSON % "a/b")
    path = project / ".opencode/opencode-fallback.json"
    path.parent.mkdir()
    path.symlink_to(target)
    assert ConfigSource(directory=project).load().settings.fallback_models == ("a/b",)


@pytest.mark.parametrize("name", ["c.yaml", "c.jsn", "config", ".json"])
def test_a_format_that_is_not_known(project, name):
    path = put(project / name, "{}")
    assert named_error(path) == f"{path}: expected a file named .jsonc, .json or .toml"


def test_suffixes_in_capitals(project):
    path = put(project / "C.TOML", TOML % "a/b")
    assert ConfigSource(directory=project, config=path).load().settings.fallback_models == ("a/b",)


def test_the_largest_file_and_one_byte_more(project):
    path = project / "c.json"
    put(path, "{}" + " " * (MAX_BYTES - 2))
    assert ConfigSource(directory=project, config=path).load().settings == Settings()
    put(path, "{}" + " " * (MAX_BYTES - 1))
    assert named_error(path) == f"{path}: larger than 1048576 bytes"


@pytest.mark.parametrize("name", ["c.json", "c.jsonc", "c.toml"])
def test_a_byte_order_mark_is_no_part_of_the_text(project, name):
    path = project / name
    text = (TOML if name == "c.toml" else JSON) % "a/b"
    put(path, b"\xef\xbb\xbf" + text.encode())
    assert ConfigSource(directory=project, config=path).load().settings.fallback_models == ("a/b",)

    put(path, b"\xef\xbb\xbf" + text.replace("a/b", "ab").encode())
    column = text.index('"ab"' if "ab" in text else '"a/b"') + 1
    assert named_error(path) == f'{path}:1:{column}: fallback_models: expected "provider/model", found "ab"'


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b'{\n"\xff": 1}', "2:2"),
        ("{}".encode("utf-16"), "1:1"),
        (b"\xef\xbb\xbf{\xc3\xa9\xc3", "1:3"),
        (b"\x80", "1:1"),
    ],
)
def test_text_that_is_not_utf_8(project, content, place):
    path = put(project / "c.json", content)
    assert named_error(path) == f"{path}:{place}: expected text in UTF-8"


def test_a_name_that_is_no_path(project):
    path = project / "a\0b.json"
    assert named_error(path) == f"{path}: can't be read: not a path"


@pytest.mark.parametrize(
    "text", ["{}", "// nothing\n{}", '{"$schema": "https://example.org/s.json"}', '{"agents": {}}']
)
def test_a_file_that_says_nothing_gives_the_defaults(text):
    settings, warnings = parse(text, name="f", is_toml=False)
    assert settings.model_dump(exclude={"schema_url"}) == Settings().model_dump(exclude={"schema_url"})
    assert warnings == ()


def test_a_toml_file_of_comments_gives_the_defaults():
    assert parse("# nothing\n", name="f", is_toml=True) == (Settings(), ())


def test_the_keys_and_defaults_of_the_typescript_plugin():
    said = Settings().model_dump()
    assert {key: said[key] for key in list(said) if key not in ("agents", "schema_url", "error_rules")} == {
        "enabled": True,
        "retry_on_errors": frozenset({401, 402, 408, 429, 500, 502, 503, 504, 529}),
        "retryable_error_patterns": (),
        "max_fallback_attempts": 10,
        "cooldown_seconds": 60,
        "timeout_seconds": 30,
        "notify_on_fallback": True,
        "store": None,
        "fallback_models": (),
        "stall_timeout_seconds": 120,
        "self_abort_window_seconds": 2,
        "on_unattributed_abort": "advance",
        "host_retries_before_fallback": 0,
        "min_hop_interval_seconds": 0.25,
        "content_policy_fallback": False,
        "overflow_route": None,
    }


def test_the_example_is_a_good_file_that_shows_every_key_with_its_default():
    loaded = ConfigSource(directory=EXAMPLE.parent, config=EXAMPLE).load()
    settings = loaded.settings
    shown = {"fallback_models", "retryable_error_patterns", "error_rules", "agents"}

    assert loaded.warnings == ()
    assert settings.model_fields_set == set(Settings.model_fields) - {"schema_url"}
    assert settings.model_dump(exclude=shown) == Settings().model_dump(exclude=shown)
    assert all(getattr(settings, key) for key in shown)
    assert settings.agents["build"].fallback_models == ("anthropic/claude-sonnet-4-5", "openai/gpt-5.1")
    assert settings.agents["title"].fallback_models == ("openai/gpt-5-mini",)
