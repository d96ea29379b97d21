"""The text by which a host joins: what it says, what a slip of the pen does to it, where it is read from."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abi.errors import UsageError
from abi.wire import join_token
from abi.wire.join_token import ADDRESSES_MAX, TEXT_CHARS_MAX, VARIABLE, JoinToken, parse, read, to_text
from abid.cluster import token as drawing

FINGERPRINT = bytes(range(32))
CLUSTER = "c1a57e5000000001"
TOKEN = JoinToken(FINGERPRINT, CLUSTER, "0a0b0c0d", b"sixteen secrets!", ("10.0.0.1:8081", "[fd00::1]:8081"))
TEXT = to_text(TOKEN)

tokens = st.builds(
    JoinToken,
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=8, max_size=8).map(bytes.hex),
    st.binary(min_size=4, max_size=4).map(bytes.hex),
    st.binary(min_size=16, max_size=16),
    st.lists(st.from_regex(r"[a-z0-9.:-]{1,255}", fullmatch=True), min_size=1, max_size=ADDRESSES_MAX).map(tuple),
)


@given(tokens)
def test_a_text_says_what_it_was_made_of(token: JoinToken) -> None:
    text = to_text(token)
    assert parse(text) == token
    assert len(text) <= TEXT_CHARS_MAX
    assert text == text.lower()


def test_two_tokens_differ_and_name_the_cluster() -> None:
    first, second = (drawing.draw(FINGERPRINT, CLUSTER, ["h:1"] * 20) for _ in range(2))
    assert (first.fingerprint, first.cluster, first.addresses) == (FINGERPRINT, CLUSTER, ("h:1",) * ADDRESSES_MAX)
    assert first.identity != second.identity
    assert first.secret != second.secret
    assert drawing.digest(first.secret) != drawing.digest(second.secret)
    assert parse(to_text(first)) == first


def test_breaks_and_capitals_and_letters_that_look_alike_do_no_harm() -> None:
    assert parse(f"  {TEXT[:40]}\n{TEXT[40:]}\r\n") == TOKEN
    assert parse(TEXT.upper()) == TOKEN
    body = TEXT.removeprefix("abi-1-")
    assert parse("abi-1-" + body.replace("0", "o").replace("1", "l")) == TOKEN
    assert parse("abi-1-" + body.replace("0", "O").replace("1", "I")) == TOKEN


@pytest.mark.parametrize("place", range(len("abi-1-"), len(TEXT)))
def test_any_one_wrong_character_is_told_as_a_typo(place: int) -> None:
    wrong = "5" if TEXT[place] != "5" else "6"
    with pytest.raises(UsageError, match="typo"):
        parse(TEXT[:place] + wrong + TEXT[place + 1 :])


@settings(max_examples=3)
@given(tokens)
def test_no_other_last_letter_says_the_same(token: JoinToken) -> None:
    """The last letter has up to four bits more than are left of the bytes."""
    text = to_text(token)
    for letter in set("0123456789abcdefghjkmnpqrstvwxyz") - {text[-1]}:
        with pytest.raises(UsageError, match="typo"):
            parse(text[:-1] + letter)


@pytest.mark.parametrize("text", [TEXT[:-1], TEXT[:-8], TEXT + "0", TEXT + "0000", TEXT[:7], "abi-1-", TEXT + TEXT[6:]])
def test_what_is_not_complete_is_told_as_a_typo(text: str) -> None:
    with pytest.raises(UsageError, match="typo or is not complete"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the token is empty"),
        (" \n", "the token is empty"),
        ("abi-2-0000", "made by a newer abi"),
        ("abi-17-0000", "made by a newer abi"),
        ("abi", "this is no token"),
        ("K10abcdef::server:xyz", "this is no token"),
        ("abi-1-u", "its character 7 is none of a token"),
        ("abi-1-00é", "its character 9 is none of a token"),
    ],
)
def test_what_is_no_token_is_told_apart(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse(text)


@given(st.text(max_size=300))
def test_no_text_does_worse_than_an_error(text: str) -> None:
    for said in (text, "abi-1-" + text):
        with pytest.raises(UsageError):
            parse(said)


def test_the_secret_is_in_no_error_and_in_no_log() -> None:
    assert "secret" not in repr(TOKEN)
    assert str(TOKEN) == repr(TOKEN) == "<join token 0a0b0c0d of cluster c1a57e5000000001, 2 addresses>"
    with pytest.raises(UsageError) as caught:
        parse(TEXT[:-1] + ("x" if TEXT[-1] != "x" else "y"))
    assert not any(TEXT[at : at + 8] in str(caught.value) for at in range(6, len(TEXT) - 8))


@pytest.mark.parametrize(
    "token",
    [
        TOKEN._replace(addresses=()),
        TOKEN._replace(addresses=("h:1",) * (ADDRESSES_MAX + 1)),
        TOKEN._replace(addresses=("x" * 256,)),
        TOKEN._replace(addresses=("",)),
        TOKEN._replace(secret=b"short"),
        TOKEN._replace(cluster="abcd"),
    ],
)
def test_what_is_not_a_token_has_no_text(token: JoinToken) -> None:
    with pytest.raises(ValueError):
        to_text(token)


# Where it is read from.


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


OTHER = to_text(TOKEN._replace(identity="ffffffff"))


def never(words: str) -> str:
    raise AssertionError("nobody is to be asked")


def test_a_file_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(TEXT + "\n")
    found = read(str(path), stdin=io.StringIO(OTHER), environment={VARIABLE: OTHER}, prompt=never)
    assert found == TOKEN


def test_a_dash_is_standard_input_even_of_a_terminal() -> None:
    assert read("-", stdin=io.StringIO(TEXT), environment={VARIABLE: OTHER}, prompt=never) == TOKEN
    assert read("-", stdin=Terminal(TEXT), environment={}, prompt=never) == TOKEN


def test_the_environment_comes_before_what_is_piped_in() -> None:
    assert read(stdin=io.StringIO(OTHER), environment={VARIABLE: TEXT}, prompt=never) == TOKEN


def test_what_is_piped_in_comes_before_a_prompt() -> None:
    assert read(stdin=io.StringIO(TEXT), environment={}, prompt=never) == TOKEN


def test_a_person_is_asked_last() -> None:
    assert read(stdin=Terminal(""), environment={}, prompt=lambda words: TEXT) == TOKEN
    assert read(environment={}, prompt=lambda words: TEXT) == TOKEN


def test_nothing_to_read_from_is_an_error() -> None:
    with pytest.raises(UsageError, match="no token was given"):
        read(stdin=Terminal(""), environment={})


def test_a_person_who_ends_the_input_gives_none() -> None:
    def end_of_input(words: str) -> str:
        raise EOFError

    with pytest.raises(UsageError, match="no token was given"):
        read(stdin=Terminal(""), environment={}, prompt=end_of_input)


def test_a_token_among_arguments_is_seen_and_not_repeated() -> None:
    assert join_token.is_meant(TEXT)
    assert join_token.is_meant(TEXT[:40].upper())
    assert not join_token.is_meant("abi-1-one.example.org:8081")
    assert TEXT[6:14] not in str(join_token.on_command_line())


def test_a_source_that_says_nonsense_is_named_and_the_next_is_not_tried(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{VARIABLE}: the token is empty"):
        read(stdin=io.StringIO(TEXT), environment={VARIABLE: ""}, prompt=never)
    with pytest.raises(UsageError, match="standard input: this is no token"):
        read(stdin=io.StringIO("what?"), environment={}, prompt=never)
    missing = str(tmp_path / "missing")
    with pytest.raises(UsageError, match=f"cannot be read from {missing}: No such file"):
        read(missing, environment={VARIABLE: TEXT}, prompt=never)
    binary = tmp_path / "binary"
    binary.write_bytes(bytes(range(256)) * 1000)
    with pytest.raises(UsageError, match="this is no token"):
        read(str(binary), environment={}, prompt=never)
