"""
Azure OpenAI: the model is a deployment in the path, the key a header of its own, the API version a query parameter.

Source: Azure OpenAI in Azure AI Foundry Models, REST API reference (learn.microsoft.com).
"""

from urllib.parse import parse_qs, quote

from ...config.channel import Channel, ChannelType
from ...config.secret import Secret
from ..outgoing import Headers
from .provider import Provider, Target


def address(target: Target) -> str:
    """`{base}/openai/deployments/{model}/{path without /v1/}?api-version=V`; a version that the caller names wins."""
    asked = parse_qs(target.query).get("api-version", [target.api_version])[0]
    path = target.operation.path.removeprefix("/v1/")
    model = quote(target.upstream_model, safe="")
    return f"{target.root}/openai/deployments/{model}/{path}?api-version={quote(asked, safe='')}"


def api_key(key: Secret, channel: Channel) -> Headers:
    return [(b"api-key", key.reveal().encode())]


AZURE = Provider(ChannelType.AZURE, "Azure", address=address, auth=api_key)
