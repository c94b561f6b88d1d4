"""OpenAI's Node SDK, unmodified, where Node and the SDK are at hand: `TOLLWAY_NODE_OPENAI` names its folder."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .gateway import Gateway
from .test_sdk import ECHO_MODELS

NODE = shutil.which("node")
SDK = os.environ.get("TOLLWAY_NODE_OPENAI", "")

pytestmark = pytest.mark.skipif(
    NODE is None or not (Path(SDK) / "node_modules/openai").is_dir(),
    reason="Node, or the folder with node_modules/openai that TOLLWAY_NODE_OPENAI names, is missing",
)

EXPECTED: dict[str, Any] = {
    "chat": "hello wide world",
    "stream": {"text": "hello wide world", "usage": None},
    "stream with usage": {"text": "hello wide world", "usage": 3},
    "tools": "weather",
    "embeddings": [8, 8],
    "images generate": "PNG",
    "images edit": 2,
    "images variation": 1,
    "speech": "WAVE",
    "transcription": "good day",
    "transcription as text": "good day\n",
    "translation": "A sound of 68 bytes.",
    "moderation": False,
    "models list": sorted(ECHO_MODELS),
    "models get": "gpt-4o-mini",
    "unknown key": {"name": "AuthenticationError", "status": 401, "code": "invalid_api_key", "param": None},
    "empty balance": {"name": "APIError", "status": 402, "code": "insufficient_quota", "param": None},
    "unknown model": {"name": "NotFoundError", "status": 404, "code": "model_not_found", "param": "model"},
    "bad field": {"name": "BadRequestError", "status": 400, "code": "empty_array", "param": "messages"},
    "unknown path": {"name": "NotFoundError", "status": 404, "code": "unknown_url", "param": None},
}


@pytest.fixture(scope="module")
def found(gateway: Gateway) -> dict[str, Any]:
    caller, poor = gateway.account(), gateway.account(quota=0)
    gateway.channel(caller, models=ECHO_MODELS)
    script = Path(__file__).with_name("sdk.mjs")
    command = [NODE or "node", script, SDK, gateway.base_url, caller.key, poor.key]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_node_sdk(name: str, found: dict[str, Any]) -> None:
    assert found[name] == EXPECTED[name]


def test_nothing_that_was_tried_is_left_unchecked(found: dict[str, Any]) -> None:
    assert found.keys() == EXPECTED.keys()
