"""Where an upstream reports no usage, tokens are counted as the model counts them, and the record says so."""

import orjson
import pytest

from .conftest import UpstreamOf
from .gateway import Account, Gateway
from .scripted import always
from .wire import DONE, MODEL, delta, stream, whole

WORDS = ["The", " quick", " brown", " fox", " jumps", " over", " the", " lazy", " dog", "."]
ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "敏捷的棕色狐狸跳过了懒狗。"}]}
SENT = 3 + 3 + 1 + 14
"""The reply's start, the message, its role, and the text in `o200k_base`."""


@pytest.mark.parametrize("streaming", [True, False])
def test_an_answer_without_usage_is_counted(
    streaming: bool, gateway: Gateway, account: Account, upstream: UpstreamOf
) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "".join(WORDS)}, "finish_reason": "stop"}
    answer = {"id": "c", "object": "chat.completion", "model": MODEL, "choices": [choice]}
    script = stream(*map(delta, WORDS), DONE) if streaming else whole(orjson.dumps(answer))
    gateway.channel(account, upstream(always(script)).url)
    assert gateway.chat(account, ASKED | {"stream": streaming}).status == 200
    row = gateway.charge(account)
    assert (row.input_tokens, row.output_tokens, row.estimated) == (SENT, len(WORDS), True)
