"""The built-in upstream's conversations: the caller's last words come back, a word a token."""

import itertools
from collections.abc import Iterator
from typing import Any, cast

from ...adapters.usage.token_estimates import estimate_input
from .echo_answer import WORD, Document, EchoAnswer, events_answer, json_answer

NOTHING = "There is nothing to echo."

_numbers = itertools.count(1)


def chat(document: Document, now: int) -> EchoAnswer:
    """`POST /v1/chat/completions`. Tools are called when `tool_choice` leaves no other way."""
    kind = "chat.completion.chunk" if document.get("stream") else "chat.completion"
    answer = _Answer(document, now, "chatcmpl", kind)
    tool = _tool_to_call(document)
    if tool is not None:
        message: Document = {"role": "assistant", "content": None, "tool_calls": [_tool_call(tool, answer.id)]}
        words, reason = ["{}"], "tool_calls"
        deltas = _tool_deltas(message["tool_calls"][0])
    else:
        words, reason = _limited(_last_user_text(document), document)
        message = {"role": "assistant", "content": "".join(words), "refusal": None}
        deltas: list[Document] = [{"role": "assistant", "content": ""}, *({"content": word} for word in words)]
    if document.get("stream"):
        return events_answer(answer.stream([{"delta": delta} for delta in deltas], {"delta": {}}, reason, len(words)))
    return json_answer(answer.whole({"message": message, "logprobs": None}, reason, len(words)))


def completion(document: Document, now: int) -> EchoAnswer:
    """`POST /v1/completions`."""
    answer = _Answer(document, now, "cmpl", "text_completion")
    prompt = document.get("prompt")
    words, reason = _limited(prompt if isinstance(prompt, str) else _joined(prompt), document)
    if document.get("stream"):
        return events_answer(answer.stream([{"text": word} for word in words], {"text": ""}, reason, len(words)))
    return json_answer(answer.whole({"text": "".join(words), "logprobs": None}, reason, len(words)))


class _Answer:
    """The fields that an answer, or each of its chunks, has in common."""

    def __init__(self, document: Document, now: int, prefix: str, kind: str) -> None:
        self.id = f"{prefix}-echo{next(_numbers)}"
        self.head: Document = {"id": self.id, "object": kind, "created": now, "model": document.get("model")}
        choices = document.get("n")
        self.choices = choices if isinstance(choices, int) and 0 < choices <= 128 else 1
        self.prompt_tokens = estimate_input(document)
        options = document.get("stream_options")
        self.tell_usage = isinstance(options, dict) and cast(Document, options).get("include_usage") is True

    def whole(self, choice: Document, reason: str, tokens: int) -> Document:
        choices = [{"index": index, **choice, "finish_reason": reason} for index in range(self.choices)]
        return {**self.head, "choices": choices, "usage": self._usage(tokens)}

    def stream(self, parts: list[Document], last: Document, reason: str, tokens: int) -> Iterator[Document]:
        extra: Document = {"usage": None} if self.tell_usage else {}
        for index in range(self.choices):
            for part in parts:
                yield {**self.head, "choices": [{"index": index, **part, "finish_reason": None}], **extra}
            yield {**self.head, "choices": [{"index": index, **last, "finish_reason": reason}], **extra}
        if self.tell_usage:
            yield {**self.head, "choices": [], "usage": self._usage(tokens)}

    def _usage(self, tokens: int) -> Document:
        output = tokens * self.choices
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": output,
            "total_tokens": self.prompt_tokens + output,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }


def _limited(text: str, document: Document) -> tuple[list[str], str]:
    """The text as words, cut at the caller's limit, and why it ends."""
    words = WORD.findall(text or NOTHING)
    limit = document.get("max_completion_tokens") or document.get("max_tokens")
    if isinstance(limit, int) and len(words) > limit:
        return words[: max(limit, 0)], "length"
    return words, "stop"


def _last_user_text(document: Document) -> str:
    messages = document.get("messages")
    for message in reversed(cast(list[Any], messages) if isinstance(messages, list) else []):
        if isinstance(message, dict) and cast(Document, message).get("role") == "user":
            content = cast(Document, message).get("content")
            return content if isinstance(content, str) else _joined(content)
    return ""


def _joined(parts: Any) -> str:
    """The texts in a list of strings or content parts."""
    texts: list[str] = []
    for part in cast(list[Any], parts) if isinstance(parts, list) else []:
        text = cast(Document, part).get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            texts.append(text)
    return "\n".join(texts)


def _tool_to_call(document: Document) -> str | None:
    """The name of the tool that must be called, or None."""
    choice = document.get("tool_choice")
    match choice:
        case {"type": "function", "function": {"name": str(name)}}:
            return name
        case "required":
            match document.get("tools"):
                case [{"function": {"name": str(name)}}, *_]:
                    return name
                case _:
                    return None
        case _:
            return None


def _tool_call(name: str, answer_id: str) -> Document:
    return {"id": f"call_{answer_id}", "type": "function", "function": {"name": name, "arguments": "{}"}}


def _tool_deltas(call: Document) -> list[Document]:
    opened = {"index": 0, **call, "function": {**call["function"], "arguments": ""}}
    arguments = {"index": 0, "function": {"arguments": call["function"]["arguments"]}}
    return [{"role": "assistant", "content": None, "tool_calls": [opened]}, {"tool_calls": [arguments]}]
