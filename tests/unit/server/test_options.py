import os
import re
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from rootmodels.weights_info import PRETRAINED_DIR
from rootserve.server.options import OptionError, read_settings
from rootserve.server.settings import Settings


def test_defaults_are_loopback_and_the_fixed_ports() -> None:
    settings = read_settings([], {})
    assert (settings.host, settings.port, settings.metrics_port) == ("127.0.0.1", 8001, 8002)


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "rootserve.toml"
    config.write_text('port = 1\nmax_delay_us = 2\nmodels = ["nin-orig"]\n')
    environment = {"ROOTSERVE_PORT": "3", "ROOTSERVE_MAX_DELAY_US": "4", "ROOTSERVE_SERVER": "x:1"}
    settings = read_settings(["--config", str(config), "--port", "5"], environment)
    assert (settings.port, settings.max_delay_us, settings.models) == (5, 4, ("nin-orig",))


def test_lists_are_separated_by_commas() -> None:
    settings = read_settings(["--models", "nin-orig, nin-root-4"], {})
    assert settings.models == ("nin-orig", "nin-root-4")


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--port", "http"], {}, ["--port", "'http'", "integer"]),
        (["--port", "70000"], {}, ["--port", "'70000'", "less than or equal to 65535"]),
        (["--max-batch-rows", "0"], {}, ["--max-batch-rows", "greater than or equal to 1"]),
        ([], {"ROOTSERVE_MAX_DELAY_US": "-1"}, ["ROOTSERVE_MAX_DELAY_US", "'-1'", "0"]),
        (["--engine", "onnx"], {}, ["--engine", "'onnx'", "openvino, ", "torch or fake"]),
        (["--device", "gpu"], {}, ["--device", "'gpu'", "auto, cpu, cuda, or cuda:N"]),
        (["--max-queue-rows", "8"], {}, ["--max-queue-rows", "8", "32"]),
        (["--default-priority", "4"], {}, ["--default-priority", "4", "priority_levels, 3"]),
        (["--max-queue-mb", "8"], {}, ["--max-queue-mb", "8", "max_message_mb, 64"]),
        (["--max-image-mb", "0"], {}, ["--max-image-mb", "greater than or equal to 1"]),
        (["--max-image-megapixels", "x"], {}, ["--max-image-megapixels", "'x'", "integer"]),
        (["--hang-s", "0"], {}, ["--hang-s", "greater than 0"]),
        (["--config", "/nowhere.toml"], {}, ["--config", "/nowhere.toml", "No such file"]),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_what_was_expected(
    arguments: list[str], environment: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(OptionError) as caught:
        read_settings(arguments, environment)
    for word in words:
        assert word in str(caught.value)


def test_a_wrong_value_in_the_file_is_named_with_the_file(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("port = 'x'")
    with pytest.raises(OptionError, match=r"port in .*c\.toml: 'x' came"):
        read_settings(["--config", str(config)], {})


@pytest.mark.parametrize(
    ("text", "words"), [("prot = 1", "prot in"), ("port = ", "not valid TOML")]
)
def test_a_file_with_unknown_keys_or_no_toml_is_refused(
    tmp_path: Path, text: str, words: str
) -> None:
    config = tmp_path / "c.toml"
    config.write_text(text)
    with pytest.raises(OptionError, match=words):
        read_settings(["--config", str(config)], {})


KUBERNETES = {
    "ROOTSERVE_PORT": "tcp://10.96.3.4:8001",
    "ROOTSERVE_PORT_8001_TCP": "tcp://10.96.3.4:8001",
    "ROOTSERVE_PORT_8001_TCP_PROTO": "tcp",
    "ROOTSERVE_PORT_8001_TCP_PORT": "8001",
    "ROOTSERVE_PORT_8001_TCP_ADDR": "10.96.3.4",
    "ROOTSERVE_SERVICE_HOST": "10.96.3.4",
    "ROOTSERVE_SERVICE_PORT": "8001",
    "ROOTSERVE_SERVICE_PORT_GRPC": "8001",
    "ROOTSERVE_METRICS_PORT": "tcp://10.96.3.5:8002",
    "ROOTSERVE_METRICS_SERVICE_HOST": "10.96.3.5",
    "ROOTSERVE_METRICS_PORT_8002_TCP_ADDR": "10.96.3.5",
}


def test_what_kubernetes_sets_for_services_called_so_is_not_ours() -> None:
    assert read_settings([], KUBERNETES) == read_settings([], {})
    assert read_settings([], {**KUBERNETES, "ROOTSERVE_PORT": "9001"}).port == 9001


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        (
            "ROOTSERVE_MODLES",
            "ROOTSERVE_MODLES: there is no such setting; did you mean ROOTSERVE_MODELS?",
        ),
        ("ROOTSERVE_XYZZY", "ROOTSERVE_XYZZY: there is no such setting"),
    ],
)
def test_a_variable_nobody_knows_is_refused_with_the_nearest_name(
    variable: str, words: str
) -> None:
    with pytest.raises(OptionError) as caught:
        read_settings([], {variable: "x", "ROOTSERVE_TOKEN": "t"})
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prot", "1"], "--prot: there is no such option; did you mean --port?"),
        (["--prot=1"], "--prot: there is no such option; did you mean --port?"),
        (["--xyzzy"], "--xyzzy: there is no such option (see --help)"),
        (["nin-orig"], "'nin-orig' came, expected options only, as --models A,B (see --help)"),
    ],
)
def test_an_option_nobody_knows_is_refused_with_the_nearest_name(
    arguments: list[str], words: str
) -> None:
    with pytest.raises(OptionError) as caught:
        read_settings(arguments, {})
    assert str(caught.value) == words


def test_a_key_nobody_knows_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    for key, words in (("prot", "did you mean port?"), ("xyzzy", "there are host, port,")):
        config.write_text(f"{key} = 1")
        with pytest.raises(
            OptionError, match=rf"^{key} in .*: there is no such setting; {re.escape(words)}"
        ):
            read_settings(["--config", str(config)], {})


def test_a_choice_is_refused_in_one_line_with_all_that_there_are() -> None:
    with pytest.raises(OptionError) as caught:
        read_settings(["--precision", "fp64"], {})
    assert str(caught.value) == "--precision: 'fp64' came, expected fp32, fp16, bf16, int8 or auto"


def test_an_address_may_be_given_as_it_is_printed() -> None:
    assert read_settings(["--host", "[::1]"], {}).host == "::1"


def test_the_settings_that_differ_from_the_defaults_can_be_told() -> None:
    settings = read_settings(["--port", "1", "--weights", "/w"], {"ROOTSERVE_MODELS": "nin-orig"})
    assert settings.changed() == {"port": 1, "weights": "/w", "models": ("nin-orig",)}


def test_weights_may_be_in_several_folders(tmp_path: Path) -> None:
    expected = (PRETRAINED_DIR, Path("/w"), Path("v"))
    config = tmp_path / "settings.toml"
    config.write_text('weights = ["shipped", "/w", "v"]')
    joined = os.pathsep.join(("shipped", "/w", "v"))
    for arguments, environment in (
        (["--weights", "shipped", "--weights", "/w", "--weights", "v"], {}),
        (["--weights", joined], {"ROOTSERVE_WEIGHTS": "/other"}),
        ([], {"ROOTSERVE_WEIGHTS": joined}),
        (["--config", str(config)], {}),
    ):
        assert read_settings(arguments, environment).weights == expected
    changed = read_settings(["--weights", "/w", "--weights", "v"], {}).changed()
    assert changed == {"weights": os.pathsep.join(("/w", "v"))}
    assert read_settings([], {}).weights == (PRETRAINED_DIR,)


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (["--weights", "a", "--weights", "b/../a"], "the folder b/../a comes twice"),
        (["--weights", ""], "expected a folder"),
    ],
)
def test_folders_that_make_no_sense_are_refused(folders: list[str], words: str) -> None:
    with pytest.raises(OptionError, match=rf"^--weights: .* came, {words}$"):
        read_settings(folders, {})


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        read_settings([], {}).port = 1  # type: ignore[misc]


def test_help_names_every_setting_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_settings(["--help"], {})
    text = capsys.readouterr().out
    for key in Settings.model_fields:
        assert f"--{key.replace('_', '-')} " in text
    assert "--log-level debug|info|warning|error" in text
    assert "--slow-request-ms MS" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_file_may_hold_every_setting(tmp_path: Path) -> None:
    config = tmp_path / "all.toml"
    config.write_text('host = "127.0.0.2"\nmodels = ["nin-orig"]\ndrain_s = 1.5\n')
    assert set(tomllib.loads(config.read_text())) <= set(Settings.model_fields)
    settings = read_settings(["--config", str(config)], {})
    assert (settings.host, settings.models, settings.drain_s) == ("127.0.0.2", ("nin-orig",), 1.5)
