"""What a person pastes, and what is to be found in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.redaction.detect import KNOWN_KINDS, CustomType, build_detector, kind_table
from proxy.core.redaction.detect.catalog import KIND_BY_NAME
from proxy.core.redaction.detect.secrets import entropy, has_entropy

DETECTOR = build_detector()


def found(text: str) -> list[tuple[str, str]]:
    """Return the values seen in a text with their kinds."""
    return [(text[f.start : f.end], f.kind) for f in DETECTOR.find(text)]


@pytest.mark.parametrize(
    ("text", "value", "kind"),
    [
        ("Meu CPF é 529.982.247-25, pode conferir?", "529.982.247-25", "CPF"),
        ("cpf 52998224725", "52998224725", "CPF"),
        ("CNPJ 11.222.333/0001-81", "11.222.333/0001-81", "CNPJ"),
        ("CNPJ: 12.ABC.345/01DE-35", "12.ABC.345/01DE-35", "CNPJ"),
        ("write to josé.silva@empresa.com.br.", "josé.silva@empresa.com.br", "EMAIL"),
        ("to=ana%40example.com&x=1", "ana%40example.com", "EMAIL"),
        ("card 4111 1111 1111 1111 exp 12/28", "4111 1111 1111 1111", "CREDIT_CARD"),
        ("3782.822463.10005", "3782.822463.10005", "CREDIT_CARD"),
        ("ligue +55 11 98765-4321", "+55 11 98765-4321", "PHONE"),
        ("(11) 98765-4321", "(11) 98765-4321", "PHONE"),
        ("fax 345-899-3560x4587", "345-899-3560x4587", "PHONE"),
        ("01.84.17.61.18", "01.84.17.61.18", "PHONE"),
        ("IBAN gb82 west 1234 5698 7654 32 thanks", "gb82 west 1234 5698 7654 32", "IBAN"),
        ("SSN 536-22-8726", "536-22-8726", "US_SSN"),
        ("born on May 3, 1990", "May 3, 1990", "DATE_OF_BIRTH"),
        ("geboren am 3.5.1990", "3.5.1990", "DATE_OF_BIRTH"),
        ("from 203.0.113.7:8080", "203.0.113.7", "IP_ADDRESS"),
        ("addr 2001:db8::1/64", "2001:db8::1/64", "IP_ADDRESS"),
        ("eth0 00:1A:2B:3C:4D:5E up", "00:1A:2B:3C:4D:5E", "MAC_ADDRESS"),
        ("postgres://ana:s3cretPw@db/app", "ana:s3cretPw", "URL_CREDENTIALS"),
        ("password: Summer299!", "Summer299!", "PASSWORD"),
        ("meine Steuer-ID lautet 86095742719", "86095742719", "DE_TAX_ID"),
        ("身份证号：11010519491231002X", "11010519491231002X", "CN_RIC"),
        ("マイナンバーは123456789018です", "123456789018", "JP_MY_NUMBER"),
        ("ＣＰＦ ５２９.９８２.２４７-２５", "５２９.９８２.２４７-２５", "CPF"),
        ("cpf 529\u200b.982\u200b.247-25", "529\u200b.982\u200b.247-25", "CPF"),
        ('{"user_phone": "11987654321"}', "11987654321", "PHONE"),
        ('{\\"cpf\\":\\"52998224725\\"}', "52998224725", "CPF"),
        ("name,cpf\nAna,52998224725\n", "52998224725", "CPF"),
        ("name\tpassword\nAna\tXk9$mPq2vL\n", "Xk9$mPq2vL", "PASSWORD"),
        ("INSERT INTO t (name, ssn) VALUES ('Ana', '536228726')", "536228726", "US_SSN"),
        ("199109242397 är mitt personnummer", "199109242397", "SE_PERSONNUMMER"),
        ("API_KEY=8f14e45fceea167a5a36dedd4bea2543", "8f14e45fceea167a5a36dedd4bea2543", "API_KEY"),
    ],
)
def test_value_in_everyday_text_is_found_whole(text: str, value: str, kind: str) -> None:
    """One letter left outside the span is a leak; one too many breaks the sentence."""
    assert (value, kind) in found(text)


@pytest.mark.parametrize(
    "text",
    [
        "order 52998224725 shipped",
        "created 1732184440, seed 987654321",
        "2026-11-21 10:20:40.123 INFO job done",
        "lat -16.763250, lon -50.151575",
        "ISBN 978-7-6957-8840-8",
        "git clone git@github.com:org/repo.git",
        "icon@2x.png and react@18.2.0",
        "Chrome/91.0.4472.124 Safari/537.36",
        "listening on 127.0.0.1, mask 255.255.255.0",
        "password: ${DB_PASSWORD} token: <YOUR_TOKEN>",
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx AKIAIOSFODNN7EXAMPLE",
        "uuid 0852d685-2170-4412-a5b9-c1702f84ed46",
        "sha256:6369c16440512c7bdcb867891febd1e3f2d86f0dc15271270560fe88030b81d3",
        "std::vector<int> v; ns::add(x)",
        "version 8.8.4.2 of the driver",
        "max_tokens=4096, prompt_tokens: 123456789",
        "1.234.567,89 and R$ 329.132,22",
        "",
    ],
)
def test_look_alike_is_left_alone(text: str) -> None:
    """False alarms break prompts, code and numbers the model has to work with."""
    assert [] == found(text)


def test_cpf_is_not_cut_out_of_longer_number() -> None:
    """Digit runs are judged whole: a CPF inside a 20-digit id is an accident."""
    assert [] == found("id 00052998224725000001")


def test_two_cards_in_a_row_are_two_findings() -> None:
    """A blank between values is no separator inside one."""
    text = "4111111111111111 5500 0000 0000 0004"

    assert [("4111111111111111", "CREDIT_CARD"), ("5500 0000 0000 0004", "CREDIT_CARD")] == found(text)


def test_label_of_json_key_reaches_value() -> None:
    """The walk hands over the key a string stands under."""
    assert ["US_BANK_ROUTING"] == [f.kind for f in DETECTOR.find_labelled("121000358", "routingNumber")]
    assert [(0, 9)] == [(f.start, f.end) for f in DETECTOR.find_labelled("121000358", "routingNumber")]
    assert [] == DETECTOR.find_labelled("121000358", "comment")


def test_kinds_not_asked_for_are_not_reported() -> None:
    """A policy that turns a type off must not pay for it with another type's placeholder."""
    detector = build_detector(frozenset({"EMAIL"}))

    assert ["EMAIL"] == [f.kind for f in detector.find("ana@example.com 529.982.247-25")]


def test_custom_type_with_label_and_validator_is_found() -> None:
    """Policy authors add their own numbers."""
    own = CustomType("STAFF_ID", r"[0-9]{7}", labels=("staff id",), validator="luhn", must_match=("staff id: 1234566",))
    detector = build_detector(custom=(own,))

    assert [(10, 17, "STAFF_ID")] == [f[:3] for f in detector.find("staff id: 1234566 or 1234567")]
    assert detector.may_contain(b'{"a":"staff id: 1234566"}')


@pytest.mark.parametrize(
    "own",
    [
        CustomType("EMAIL", "x"),
        CustomType("lower", "x"),
        CustomType("A", r"(x)\1"),
        CustomType("A", "x*"),
        CustomType("A", "x", validator="nope"),
        CustomType("A", "x", must_match=("y",)),
        CustomType("A", "x", must_not_match=("xx",)),
        CustomType("A", "x" * 1001),
    ],
)
def test_unsound_custom_type_is_refused(own: CustomType) -> None:
    """At load, not in the first request it meets."""
    with pytest.raises(ValueError, match=r"custom type|linear-time"):
        build_detector(custom=(own,))


def test_unknown_kind_is_refused() -> None:
    """A typo must not turn a type off."""
    with pytest.raises(ValueError, match="EMIAL"):
        build_detector(frozenset({"EMIAL"}))


def test_docs_table_names_every_kind() -> None:
    """The docs are generated from it."""
    rows = kind_table()

    assert KNOWN_KINDS == {row[0] for row in rows}
    assert {"strong", "label"} == {row[2] for row in rows}
    assert all(row[1] and row[5] for row in rows)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"model":"gpt-4o-mini-2024-07-18","max_tokens":1024,"seed":42,"messages":[{"role":"user","content":"hi"}]}',
            False,
        ),
        (
            b'{"model":"claude-3-5-sonnet-20241022","messages":[{"role":"user","content":"revenue grew 12.5% in 2024"}]}',
            False,
        ),
        (b'{"content":"mail ana@example.com"}', True),
        (b'{"content":"cpf 52998224725"}', True),
        (b'{"content":"caf\\u00e9 ol\\u00e9"}', False),
        (b'{"content":"\\uff11\\uff11 \\u0039\\u0038765-4321 ana\\u0040example.com"}', True),
        (b'{"arguments":"{\\"ssn\\":\\"536-22-8726\\"}"}', True),
        (b'{"id":"call_gEYliT3h2ArLMFeJMPOd6emz","created":1732184440}', False),
        (b'{"content":"name,password\\nana,Xk9$mPq2vL\\n"}', True),
    ],
)
def test_gate_opens_only_for_what_may_hold_a_value(body: bytes, expected: bool) -> None:
    """A closed gate saves parsing; an open one costs time; a wrongly closed one leaks."""
    assert expected is DETECTOR.may_contain(body)


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("hello world, ", ""),
        ("call +55 11 9", "+55 11 9"),
        ("call (", "("),
        ("my IBAN is GB82 WEST 1", "GB82 WEST 1"),
        ("mail ana.b@exam", "ana.b@exam"),
        ("key sk-ant-abc", "sk-ant-abc"),
        ("born May 3, 19", "May 3, 19"),
        ("-----BEGIN RSA PRIV", "-----BEGIN RSA PRIV"),
    ],
)
def test_live_start_covers_what_may_still_grow(text: str, held: str) -> None:
    """A stream may release everything before it; holding more than needed only costs latency."""
    assert text.endswith(held)
    assert DETECTOR.live_start(text) <= len(text) - len(held)
    assert len(text) - DETECTOR.live_start(text) <= max(len(held), 16)


@pytest.mark.parametrize("validator", ["luhn", "cpf", "iban", "verhoeff", "fi_hetu", "cnpj", "base58check"])
def test_validator_of_custom_type_survives_values_of_another_form(validator: str) -> None:
    """A fault in a detector refuses the request; a policy's pattern must not be able to cause one."""
    detector = build_detector(custom=(CustomType("ANY_ID", r"id:[\w-]{1,20}", validator=validator),))

    assert [] == detector.find("id:A id:- id:é1 id:12 id:0000")


@given(st.binary(max_size=80), st.sampled_from([2.5, 3.0, 3.3, 3.8]))
def test_short_way_to_an_entropy_floor_says_what_counting_says(value: bytes, floor: float) -> None:
    """A bound that is wrong once lets a key out."""
    assert has_entropy(value, floor) is (entropy(value) >= floor)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("curl -u deploy:Sommer!794 https://ci.internal", [("Sommer!794", "PASSWORD")]),
        ("docker login -u ci -p caffe!403 registry.example.com", [("caffe!403", "PASSWORD")]),
        ("docker run -u 1000:1000 -p 8080:80 nginx", []),
        ("mysql -u root -p -P 3306 shop", []),
        ('smtp.login("me@acme.io", "verde!184")', [("me@acme.io", "EMAIL"), ("verde!184", "PASSWORD")]),
        ('router.get("/login", "auth/login-page-v2")', []),
        ('- name: SMTP_PASSWORD\n  value: "gatoN3gro@"', [("gatoN3gro@", "PASSWORD")]),
        ('sql.Open("mysql", "app:ExzJF90fV1@tcp(db:3306)/crm")', [("app:ExzJF90fV1", "URL_CREDENTIALS")]),
        ("session_token=wEz9bf8pdW0WGpEQiew8V6BLWuQuoesn", [("wEz9bf8pdW0WGpEQiew8V6BLWuQuoesn", "API_KEY")]),
        ("completion_tokens: 1024, max_tokens=4096", []),
        ("tokens: 512, token=wEz9bf8pdW0WGpEQiew8V6BLWuQuoesn", [("wEz9bf8pdW0WGpEQiew8V6BLWuQuoesn", "API_KEY")]),
        ("Authorization: 12345 wEz9bf8pdW0WGpEQ", [("wEz9bf8pdW0WGpEQ", "API_KEY")]),
        ("key fedcba9876543210fedcba9876543211-us12)", [("fedcba9876543210fedcba9876543211-us12", "API_KEY")]),
        (
            "Authorization: ApiKey-v2 5fb4285a10956505b1c0c3b8f3055703",
            [("5fb4285a10956505b1c0c3b8f3055703", "API_KEY")],
        ),
    ],
)
def test_secrets_of_command_lines_calls_and_pairs(text: str, expected: list[tuple[str, str]]) -> None:
    """Secrets stand where people type them, not only behind `password:`."""
    assert expected == found(text)


def test_signs_that_are_no_letters_do_not_keep_a_text_from_being_read_quickly() -> None:
    """Emoji, bullets and curly quotes stand in most prompts; only letters of other scripts are looked for in the text itself."""
    assert DETECTOR.is_silent("“Compare” the editions → briefly \U0001f600\n• maps".encode())
    assert not DETECTOR.is_silent("Сравни издания".encode())
    assert not DETECTOR.is_silent("\U0001f600 пароль: Summer299!".encode())
    assert ["PASSWORD"] == [f.kind for f in DETECTOR.find("\U0001f600 пароль: Summer299!")]
    assert ["EMAIL"] == [f.kind for f in DETECTOR.find("\U0001f600 “ana@example.com” •")]


@pytest.mark.parametrize("label", sorted(KIND_BY_NAME["DATE_OF_BIRTH"].labels))
def test_every_word_for_a_date_of_birth_makes_the_scan_look_at_dates(label: str) -> None:
    """The words that open the search and the words that name the kind stand in two tables."""
    assert ["DATE_OF_BIRTH"] == [f.kind for f in DETECTOR.find(f"{label}: 1990-05-03")]


def test_name_of_a_secret_in_a_header_sends_no_scan_back_to_the_beginning() -> None:
    """A text that began with a user and a secret, and named one in a header, was read for ever."""
    text = "ana/geheim9x! wrote\nid,token,ip\n41878,x,y\n"

    assert [] == found(text)
