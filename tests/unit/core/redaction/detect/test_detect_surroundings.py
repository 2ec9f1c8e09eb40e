"""What may stand around a value: other keys that say nothing, markup, other scripts, words before a colon, a label behind it."""

from __future__ import annotations

import time

import pytest

from proxy.core.redaction.detect import build_detector

DETECTOR = build_detector()


def found(text: str) -> list[tuple[str, str]]:
    """Return the values seen in a text with their kinds."""
    return [(text[f.start : f.end], f.kind) for f in DETECTOR.find(text)]


@pytest.mark.parametrize(
    ("text", "value", "kind"),
    [
        ('{"name": "cnh", "value": "02650306461"}', "02650306461", "BR_CNH"),
        ('{"type":"passport","number":"C03005988"}', "C03005988", "US_PASSPORT"),
        ('{"user":{"bsn":{"value":"111222333"}}}', "111222333", "NL_BSN"),
        ('ein?: string = "12-3456789"', "12-3456789", "US_EIN"),
        ('pix_key: str = "123e4567-e89b-42d3-a456-426614174000"', "123e4567-e89b-42d3-a456-426614174000", "BR_PIX_KEY"),
        ("## National Provider Identifier\n\n1234567893", "1234567893", "US_NPI"),
        ("02650306461 é a minha CNH", "02650306461", "BR_CNH"),
        ("111222333 is my Dutch BSN", "111222333", "NL_BSN"),
        ("we have 1234567893 as your National Provider Identifier, right?", "1234567893", "US_NPI"),
        ("1985-03-12 is my date of birth", "1985-03-12", "DATE_OF_BIRTH"),
        ("0x4ad683cbf721245568a8baa397f43a1d2c44a3c2 is my ETH address", "0x4ad683cbf721245568a8baa397f43a1d2c44a3c2", "CRYPTO_WALLET"),
        ("Né(e) le 09.12.1992", "09.12.1992", "DATE_OF_BIRTH"),
        ("F. Nac.: 25-05-1966", "25-05-1966", "DATE_OF_BIRTH"),
        ("生日 1948/12/18", "1948/12/18", "DATE_OF_BIRTH"),
        ("Телефон: 495 123-45-67", "495 123-45-67", "PHONE"),
        ("رقم الهاتف: 0501234567", "0501234567", "PHONE"),
        ("मोबाइल नंबर: 9123456780", "9123456780", "PHONE"),
        ("call +48.512.346.870 now", "+48.512.346.870", "PHONE"),
        ("+55 11 98765-4321 192.168.7.9", "192.168.7.9", "IP_ADDRESS"),
        ("+ 192.168.7.9 529.982.247-25", "192.168.7.9", "IP_ADDRESS"),
        ("10 + 10.1.2.3 and on", "10.1.2.3", "IP_ADDRESS"),
        ("+55 11 98765-4321 192.168.7.9", "+55 11 98765-4321", "PHONE"),
        ("+33 1 42.68.53.00", "+33 1 42.68.53.00", "PHONE"),
        ("żaneta.łoś@firma.pl", "żaneta.łoś@firma.pl", "EMAIL"),
        ("联系邮箱ana@example.com", "ana@example.com", "EMAIL"),
        ("MAC：22:9D:8A:47:B9:AB", "22:9D:8A:47:B9:AB", "MAC_ADDRESS"),
        ("ether:00:1a:2b:3c:4d:5e", "00:1a:2b:3c:4d:5e", "MAC_ADDRESS"),
        ("remote host:2001:db8:95f2::e2b1 up", "2001:db8:95f2::e2b1", "IP_ADDRESS"),
        ("ID card number: 310104197202057677", "310104197202057677", "CN_RIC"),
        ("\u202bVAT: DE136695976\u202c", "DE136695976", "EU_VAT"),
        ("VAT no. GB980780684", "GB980780684", "EU_VAT"),
        ("cpf 529\\.982\\.247\\-25", "529\\.982\\.247\\-25", "CPF"),
        ("mail ana\\_lima@example\\.com now", "ana\\_lima@example\\.com", "EMAIL"),
        ("host 203\\.0\\.113\\.7", "203\\.0\\.113\\.7", "IP_ADDRESS"),
        ("card=4111+1111+1111+1111&x=1", "4111+1111+1111+1111", "CREDIT_CARD"),
        ("phone=%2B55+11+98765-4321&x=1", "%2B55+11+98765-4321", "PHONE"),
        ("iban=GB82+WEST+1234+5698+7654+32", "GB82+WEST+1234+5698+7654+32", "IBAN"),
        ("Cartão  4111  1111  1111  1111  val", "4111  1111  1111  1111", "CREDIT_CARD"),
        ("NHS number:  943  476  5919", "943  476  5919", "UK_NHS"),
        ("BEGIN:VCARD\nBDAY:1965-09-14\nEND:VCARD", "1965-09-14", "DATE_OF_BIRTH"),
        ("T 0046 70 123 42 55 | F -", "0046 70 123 42 55", "PHONE"),
        ("Cartão SUS: 979 9797 2484 9698", "979 9797 2484 9698", "BR_CNS"),
        ("naam\tbsn\ttelefoon\nDaan\t111222333\t020 794 6095\n", "111222333", "NL_BSN"),
        ("Bot: what is your date of birth?\n[09:13] Sam: August 25, 1997", "August 25, 1997", "DATE_OF_BIRTH"),
        ("Agent: your passport number?\nSam: it's C03005988", "C03005988", "US_PASSPORT"),
        ("postgres://joao:KsQi%40daFTi@db:5432/app", "joao:KsQi%40daFTi", "URL_CREDENTIALS"),
    ],
)  # fmt: skip
def test_value_is_found_whatever_stands_beside_it(text: str, value: str, kind: str) -> None:
    """The words are those of people and programs, not those of one form."""
    assert (value, kind) in found(text)


@pytest.mark.parametrize(
    ("text", "value", "kind"),
    [
        ("**Password:** Summer299!", "Summer299!", "PASSWORD"),
        ("<b>API key:</b> 8f14e45fceea167a5a36dedd4bea2543", "8f14e45fceea167a5a36dedd4bea2543", "API_KEY"),
        ("secret key: sYrtdEEdKjZaFMAcphUyR9IH", "sYrtdEEdKjZaFMAcphUyR9IH", "API_KEY"),
        ("chave de API: 9b09ef540bdafa398d092f378db71354", "9b09ef540bdafa398d092f378db71354", "API_KEY"),
        ("clave de API es e6103b1e-40d9-44ad-aa15-6e4708427a40", "e6103b1e-40d9-44ad-aa15-6e4708427a40", "API_KEY"),
        ("jeton d'accès : liH77OPFuvNZSABZnVpMakR8", "liH77OPFuvNZSABZnVpMakR8", "API_KEY"),
        ("token for staging: liH77OPFuvNZSABZnVpMakR8", "liH77OPFuvNZSABZnVpMakR8", "API_KEY"),
        ("Passwort für den Server: Winter-7751", "Winter-7751", "PASSWORD"),
        ("senha provisória: Soleil736", "Soleil736", "PASSWORD"),
        ("the password is: correct-horse-82", "correct-horse-82", "PASSWORD"),
        ("| Senha | Soleil736* |", "Soleil736*", "PASSWORD"),
        ('{"name":"adminPwd","value":"aXJMAWwl602"}', "aXJMAWwl602", "PASSWORD"),
        ('{"db_password": ["aXJMAWwl602"]}', "aXJMAWwl602", "PASSWORD"),
        ('password: str = "aXJMAWwl602"', "aXJMAWwl602", "PASSWORD"),
        ("<smtp_pass>Summer#75x</smtp_pass>", "Summer#75x", "PASSWORD"),
        ("id,smtp_pass\n1,Summer#75x\n", "Summer#75x", "PASSWORD"),
        ("Summer299! is my password", "Summer299!", "PASSWORD"),
        ("use zskMstrL4xoohV8yjx7swMHLw5dHdf2B (token)", "zskMstrL4xoohV8yjx7swMHLw5dHdf2B", "API_KEY"),
        ("пароль: Banana79!", "Banana79!", "PASSWORD"),
        ("Пароль tNofVorROvrMUH601", "tNofVorROvrMUH601", "PASSWORD"),
        ("密码是ygrr9mqls57。", "ygrr9mqls57", "PASSWORD"),
        ("パスワード「4oiAVnmTnzola」", "4oiAVnmTnzola", "PASSWORD"),
        ("비밀번호: river-green68", "river-green68", "PASSWORD"),
        ("كلمة المرور: river-green68", "river-green68", "PASSWORD"),
        ("prod db pw -> NrvUpWJQlHSW541", "NrvUpWJQlHSW541", "PASSWORD"),
        ('<input type="password" name="pw" value="Dragon677x">', "Dragon677x", "PASSWORD"),
        ("ConvertTo-SecureString 'QURxGrcbt766' -AsPlainText -Force", "QURxGrcbt766", "PASSWORD"),
        ('{"auths": {"ghcr.io": {"auth": "UnFqN29BOlYxSko5MnpMMzhxOFhlT3h4"}}}', "UnFqN29BOlYxSko5MnpMMzhxOFhlT3h4", "API_KEY"),
        ("PUSHER_APP_SECRET=1828c6c16b3ff85d1508", "1828c6c16b3ff85d1508", "API_KEY"),
        ("requirepass w0Xl68diO6CNhZVAjfCf", "w0Xl68diO6CNhZVAjfCf", "PASSWORD"),
        ("<td>пароль</td><td>kzks@oipo56</td>", "kzks@oipo56", "PASSWORD"),
        ("密钥：liH77OPFuvNZSABZnVpMakR8", "liH77OPFuvNZSABZnVpMakR8", "API_KEY"),
        ("token=key-4fe3ee510975f0b7eb4d4eb89b79b286", "key-4fe3ee510975f0b7eb4d4eb89b79b286", "API_KEY"),
    ],
)  # fmt: skip
def test_secret_is_found_after_any_way_of_saying_so(text: str, value: str, kind: str) -> None:
    """People name a secret in their own words and language, and write it in their own markup."""
    assert [(value, kind)] == found(text)


@pytest.mark.parametrize(
    "text",
    [
        "1 044 999 551 users and 12,677,601,798 rows",
        "14,459,014 63047172 units",
        "part no. 093-5514-621",
        "ZIP 06508-8443",
        "20180114032452 backup",
        "utm_id=46065999601",
        "주문번호 4612901402816",
        "SI12345678 and HU12345678 are model names",
        "password policy: min 8chars and 1digit",
        "Password last changed: 2024-01-02T10:00",
        "token expires at: 2024-01-02T10:00:00Z",
        "密码长度至少8位，包含字母和数字",
        "パスワードは8文字以上で設定してください。v1.2.3以降",
        "пароль должен содержать не менее 8 символов, версия v2.1",
        "1990-05-03 is the release date",
        "12345678+87654321 = 99999999",
        "private_key = Ed25519PrivateKey.from_private_bytes(d)",
        "private_key: PKCS7PrivateKeyTypes, x: int",
        "claim.token = secrets.token_hex(16)",
        r"C:\_work\.env and \d{3}\.\d{3}",
        "Handy: nein. Vorgang 2024-118-77312",
        "Message-ID: <20240517103000.12345@mail.example.com>",
        "ISBN 979-8-4000-1234-5",
        "LBTYek1IrVlMepKTPyOdPWdi prod_glXKCPrDWIalZ2",
        "text2001:db8::1",
    ],
)
def test_text_that_only_looks_alike_is_left_alone(text: str) -> None:
    """Each false alarm breaks somebody's order number."""
    assert [] == found(text)


def test_word_of_another_kind_between_takes_the_value_to_itself() -> None:
    """The word "clave" is a password in one sentence and a code of the registry in the next."""
    assert [("HEGG560427MVZRRL04", "MX_CURP")] == found("Clave CURP: HEGG560427MVZRRL04")
    assert [("123e4567-e89b-42d3-a456-426614174000", "BR_PIX_KEY")] == found(
        "chave aleatória: 123e4567-e89b-42d3-a456-426614174000"
    )


def test_array_that_never_ends_is_read_in_time() -> None:
    """Blanks around commas could once be shared out in every way there is: thirty indented lines took for ever."""
    text = 'names = ["password"]\nrows = [\n' + "".join(f"        item{n},\n" for n in range(300)) + "{ssn: 536-90-4399"
    began_s = time.process_time()

    assert [("536-90-4399", "US_SSN")] == found(text)
    assert time.process_time() - began_s < 2


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("SSN: 536-22-8745", "US_SSN"),
        ("the number 536-22-8745 on file", "US_SSN"),
        ("SSN 936-70-4399", "US_SSN"),
        ("ITIN 936-70-4399", "US_ITIN"),
        ("the number 936-70-4399 on file", "US_ITIN"),
        ("SSN: 666-12-3456", "US_SSN"),
        ("SSN 987-65-4320", "US_SSN"),
    ],
)
def test_label_decides_between_kinds_of_one_shape_only_where_both_would_take_the_number(text: str, kind: str) -> None:
    """Numbers of taxpayers and of social security are both written 3-2-4; most belong to one of them alone."""
    assert [kind] == [named for _, named in found(text)]
