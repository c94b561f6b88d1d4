"""
How often a request may make its upstream search the web, for holds: nobody knows before the model has decided.

What is charged is what the upstream reports, whatever was held. Only the web is searched in this dialect: vendors
report no other tool in it.
"""

from collections.abc import Mapping
from typing import Any

from ..call import Call
from ..json_shapes import EMPTY, list_of, object_of
from .reported import MOST_CALLS

RESEARCH = "deep-research"
"""In the names of models that search whether they are asked to or not."""

USUAL_SEARCHES = 5
"""What is held for a tool whose use the caller does not limit."""
USUAL_SOURCES = 20
"""xAI charges by the source, of which it reads so many unless told otherwise (guide "Live Search")."""
RESEARCH_SEARCHES = 50
FOUND_TOKENS = 8_000
"""Input that a search adds (OpenAI, "Pricing": a fixed block for each call of the small models)."""


def asks_more(call: Call) -> bool:
    """False for a call that causes no search and caches nothing itself: a quick look, for all that is plain text."""
    document = call.document or EMPTY
    return (
        "tools" in document
        or "web_search_options" in document  # OpenAI's
        or "search_parameters" in document  # xAI's
        or "plugins" in document  # OpenRouter's
        or "cache_control" in document  # Anthropic's
        or RESEARCH in call.base_model
    )


def most_searches(call: Call) -> int:
    """Searches, or sources of searches, that a conversation may well cause; at most 100."""
    if call.operation.dialect != "openai_chat" or not asks_more(call):
        return 0
    document = call.document or {}
    searches = RESEARCH_SEARCHES if RESEARCH in call.base_model else 0
    if document.get("web_search_options") is not None:
        searches += USUAL_SEARCHES
    live = object_of(document.get("search_parameters"))
    if live and live.get("mode") != "off":
        searches += _limit(live, "max_search_results", USUAL_SOURCES)
    for tool in map(object_of, list_of(document.get("tools"))):
        if "web_search" in str(tool.get("type")):
            searches += _limit(tool, "max_uses", USUAL_SEARCHES)
    for plugin in map(object_of, list_of(document.get("plugins"))):
        if plugin.get("id") == "web":
            searches += USUAL_SEARCHES
    return min(searches, MOST_CALLS)


def found_tokens(searches: int) -> int:
    """Input tokens that so many searches may add."""
    return FOUND_TOKENS * min(searches, USUAL_SEARCHES)


def _limit(fields: Mapping[str, Any], name: str, usual: int) -> int:
    """The caller's own limit, if it is one."""
    limit = fields.get(name)
    return limit if type(limit) is int and limit > 0 else usual
