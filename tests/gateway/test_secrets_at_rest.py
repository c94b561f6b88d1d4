import base64
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollway.config.secret import Secret
from tollway.gateway.secrets_at_rest import (
    CannotDecrypt,
    Vault,
    hash_password,
    needs_rehash,
    verify_password,
)

OLD, NEW = Secret("the first secret ever"), Secret("the second secret now")
VAULT = Vault(OLD)
KEY = "sk-" + "aB3" * 16


@given(text=st.text(max_size=200), aad=st.text(max_size=40))
def test_what_is_encrypted_is_decrypted(text: str, aad: str) -> None:
    stored = VAULT.encrypt(text, aad)
    assert VAULT.decrypt(stored, aad) == text
    assert stored.isascii()


def test_the_same_text_is_never_stored_twice_alike() -> None:
    assert len({VAULT.encrypt("key", "channel:1") for _ in range(10)}) == 10


def test_a_secret_copied_to_another_record_does_not_open() -> None:
    with pytest.raises(CannotDecrypt, match="channel:2 was altered, or belongs to another record"):
        VAULT.decrypt(VAULT.encrypt("key", "channel:1"), "channel:2")


def test_every_altered_byte_is_noticed() -> None:
    version, key_id, encoded = VAULT.encrypt("key", "channel:1").split(":")
    sealed = base64.b64decode(encoded)
    for i in range(len(sealed)):
        altered = bytearray(sealed)
        altered[i] ^= 1
        with pytest.raises(CannotDecrypt, match="altered"):
            VAULT.decrypt(f"{version}:{key_id}:{base64.b64encode(altered).decode()}", "channel:1")


def test_another_secret_says_what_is_missing() -> None:
    with pytest.raises(
        CannotDecrypt,
        match=r"channel:1 was encrypted under another CRYPTO_SECRET \(key id [0-9a-f]{8}\), and opens with no other: "
        "CRYPTO_SECRET or CRYPTO_SECRET_FORMER must name that one",
    ):
        Vault(NEW).decrypt(VAULT.encrypt("key", "channel:1"), "channel:1")


def test_a_mark_is_that_of_one_secret_also_when_it_is_a_former_one() -> None:
    assert VAULT.knows(Vault(OLD).mark)
    assert VAULT.is_current_mark(Vault(OLD).mark)
    assert Vault(NEW, former=[OLD]).knows(VAULT.mark)
    assert not Vault(NEW, former=[OLD]).is_current_mark(VAULT.mark)
    assert not Vault(NEW).knows(VAULT.mark)
    assert Vault(NEW).for_database(VAULT.mark) is None


def in_database(vault: Vault, mark: str) -> Vault:
    found = vault.for_database(mark)
    assert found is not None
    return found


def test_tokens_are_hashed_as_they_were_however_often_the_secret_changes() -> None:
    mark, before = VAULT.mark, OLD
    for now in (NEW, Secret("the third secret, later"), OLD):
        mark = in_database(Vault(now, former=[before]), mark).mark
        assert in_database(Vault(now), mark).token_hash(KEY) == VAULT.token_hash(KEY)
        assert Vault(Secret("somebody else's secret")).for_database(mark) is None
        before = now
    assert mark == VAULT.mark


def test_a_mark_that_was_put_together_of_two_does_not_open() -> None:
    mark = in_database(Vault(NEW, former=[OLD]), VAULT.mark).mark
    with pytest.raises(CannotDecrypt, match="the secret of the token hashes was encrypted under another CRYPTO_SECRET"):
        VAULT.for_database(f"{VAULT.mark} {mark.partition(' ')[2]}")


@pytest.mark.parametrize("stored", ["", "sk-plain-key", "v2:00000000:AAAA", "v1:00000000:", "v1"])
def test_what_is_not_ours_is_refused(stored: str) -> None:
    with pytest.raises(CannotDecrypt, match="not in the form"):
        VAULT.decrypt(stored, "channel:1")


@pytest.mark.parametrize("encoded", ["not base64!", "AAAA", "A"])
def test_a_text_that_was_cut_is_refused(encoded: str) -> None:
    key_id = VAULT.encrypt("", "").split(":")[1]
    with pytest.raises(CannotDecrypt, match="altered"):
        VAULT.decrypt(f"v1:{key_id}:{encoded}", "channel:1")


def test_no_message_holds_a_secret() -> None:
    with pytest.raises(CannotDecrypt) as caught:
        VAULT.decrypt("sk-plain-key", "channel:1")
    assert "sk-plain-key" not in str(caught.value)


def test_after_a_rotation_the_former_secret_still_opens_and_the_new_one_writes() -> None:
    stored = VAULT.encrypt("key", "channel:1")
    both = Vault(NEW, former=[OLD])
    assert both.decrypt(stored, "channel:1") == "key"
    assert (both.is_current(stored), VAULT.is_current(stored)) == (False, True)
    assert Vault(NEW).decrypt(both.encrypt("key", "channel:1"), "channel:1") == "key"


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^CRYPTO_SECRET must have at least 16 characters"):
        Vault(Secret("fifteen letters"))
    with pytest.raises(ValueError, match=r"^CRYPTO_SECRET_FORMER must have at least 16 characters"):
        Vault(NEW, former=[OLD, Secret("fifteen letters")])


def test_a_token_hash_is_stable_and_keyed() -> None:
    assert VAULT.token_hash(KEY) == Vault(OLD).token_hash(KEY)
    assert VAULT.token_hash(KEY) != Vault(NEW).token_hash(KEY)
    assert len(VAULT.token_hash(KEY)) == 64


def test_a_token_is_the_same_with_and_without_its_prefix() -> None:
    assert VAULT.token_hash(KEY) == VAULT.token_hash(KEY.removeprefix("sk-"))
    assert VAULT.token_hash(KEY) != VAULT.token_hash(KEY[:-1])


def test_a_password_is_argon2id_with_the_stated_cost() -> None:
    stored = hash_password("correct horse")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert not needs_rehash(stored)
    assert hash_password("correct horse") != stored


@pytest.mark.parametrize(
    ("password", "right"),
    [("correct horse", True), ("correct horse ", False), ("", False), ("\u00e9" * 100, False)],
)
def test_a_password_is_verified(password: str, right: bool) -> None:
    assert verify_password(password, hash_password("correct horse")) is right


@pytest.mark.parametrize("stored", [None, "", "plain", "$argon2id$broken", "$2a$", "$2a$04$short"])
def test_nothing_verifies_without_a_hash(stored: str | None) -> None:
    assert verify_password("correct horse", stored) is False


def test_an_imported_bcrypt_hash_verifies_and_wants_to_be_replaced() -> None:
    import bcrypt

    stored = bcrypt.hashpw(b"hunter2", bcrypt.gensalt(4, prefix=b"2a")).decode()
    assert stored.startswith("$2a$")
    assert verify_password("hunter2", stored)
    assert not verify_password("hunter3", stored)
    assert needs_rehash(stored)


def test_a_published_bcrypt_vector_verifies() -> None:
    # From the tests of Openwall's crypt_blowfish.
    assert verify_password("U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW")


def test_a_password_beyond_what_bcrypt_reads_still_verifies() -> None:
    import bcrypt

    stored = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
    assert verify_password("x" * 80, stored)
    assert not verify_password("x" * 71, stored)


def test_importing_costs_no_cryptography() -> None:
    program = (
        "import sys, tollway.gateway.secrets_at_rest; print(*{'cryptography', 'argon2', 'bcrypt'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout.strip() == b""
