"""A channel as data: mapped names, stable numbers, and keys that do not show."""

from dataclasses import FrozenInstanceError

import pytest
from tollway.config.channel import Channel, ChannelStatus, ChannelType, MappingCycle, mapped_model
from tollway.config.secret import MASK, Secret

MAPPING = {
    "gpt-4": "gpt-4o",
    "gpt-4o": "azure-4o",
    "same": "same",
    "to-same": "same",
    "ring-1": "ring-2",
    "ring-2": "ring-3",
    "ring-3": "ring-1",
    "into-the-ring": "ring-2",
}


@pytest.mark.parametrize(
    ("model", "upstream"),
    [
        pytest.param("claude", "claude", id="a name that is not mapped"),
        pytest.param("gpt-4o", "azure-4o", id="one step"),
        pytest.param("gpt-4", "azure-4o", id="a chain is followed to its end"),
        pytest.param("same", "same", id="a name mapped to itself"),
        pytest.param("to-same", "same", id="a chain that ends in a name mapped to itself"),
    ],
)
def test_mapped_model(model: str, upstream: str) -> None:
    assert mapped_model(MAPPING, model) == upstream


@pytest.mark.parametrize("model", ["ring-1", "ring-2", "ring-3", "into-the-ring"])
def test_a_ring_is_an_error_from_wherever_it_is_entered(model: str) -> None:
    with pytest.raises(MappingCycle, match="back to itself"):
        mapped_model(MAPPING, model)


def test_a_long_chain_is_followed() -> None:
    chain = {str(step): str(step + 1) for step in range(1000)}
    assert mapped_model(chain, "0") == "1000"


def test_no_mapping_changes_no_name() -> None:
    assert mapped_model(Channel(1, "main", ChannelType.OPENAI, ("gpt-4o",)).model_mapping, "gpt-4o") == "gpt-4o"


def test_a_channel_does_not_show_its_keys() -> None:
    channel = Channel(1, "main", ChannelType.OPENAI, ("gpt-4o",), keys=(Secret("sk-one"), Secret("sk-two")))
    assert "sk-" not in f"{channel} {channel!r}"


@pytest.mark.parametrize("name", ["weight", "status", "keys", "model_mapping"])
def test_a_channel_is_a_snapshot(name: str) -> None:
    channel = Channel(1, "main", ChannelType.OPENAI, ("gpt-4o",))
    with pytest.raises(FrozenInstanceError):
        setattr(channel, name, None)


def test_stored_numbers_mean_what_they_meant() -> None:
    assert {kind.name: kind.value for kind in ChannelStatus} == {"ENABLED": 1, "DISABLED": 2, "AUTO_DISABLED": 3}
    known = {1: "OPENAI", 3: "AZURE", 20: "OPENROUTER", 25: "MOONSHOT", 42: "MISTRAL", 43: "DEEPSEEK", 48: "XAI"}
    assert {number: ChannelType(number).name for number in known} == known
    assert not {28, 29, 30, 32} & {kind.value for kind in ChannelType}


KEY = "bce-v3/ALTAK+x/123=="


@pytest.mark.parametrize(
    "spelled",
    [
        KEY,
        KEY.replace("/", r"\/"),
        KEY.replace("+", r"\u002B").replace("=", r"\u003d"),
        KEY.replace("-", r"\u002D").replace("/", r"\u002f"),
    ],
    ids=["as it is", "PHP's slashes", ".NET's plus", "escapes of everything"],
)
def test_a_key_is_masked_however_json_spells_it(spelled: str) -> None:
    channel = Channel(1, "c", ChannelType.OPENAI, ("m",), keys=(Secret("sk-other-key"), Secret(KEY)))
    said = '{"error":{"message":"the key %s is over its limit"}}'
    assert channel.without_secrets(said % spelled) == said % MASK
    assert channel.bytes_without_secrets((said % spelled).encode()) == (said % MASK).encode()


def test_nothing_but_a_key_is_masked() -> None:
    channel = Channel(1, "c", ChannelType.OPENAI, ("m",), keys=(Secret("sk.other(key)"), Secret("none")))
    for said in ("sk-other(key)", "sk.other(key", "none", r"\u002fsk"):
        assert channel.without_secrets(said) == said


def test_what_may_be_a_secret_is_not_shown() -> None:
    channel = Channel(
        1,
        "one",
        ChannelType.OPENAI,
        ("m",),
        keys=(Secret("s3cret"),),
        base_url="https://vendor.example/v1?key=s3cret",
        proxy="socks5://user:s3cret@proxy.example",
        header_override={"x-api-key": "s3cret"},
        param_override={"app_key": "s3cret"},
    )
    assert "s3cret" not in repr(channel)
