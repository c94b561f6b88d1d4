"""What the tokenizer's tests share: the encodings, loaded once."""

import pytest
from tiktoken import Encoding
from tollway.gateway.tokenizer.encoding import load_encoding


@pytest.fixture(scope="session")
def o200k() -> Encoding:
    return load_encoding("o200k_base")


@pytest.fixture(scope="session")
def cl100k() -> Encoding:
    return load_encoding("cl100k_base")
