"""Writes adversarial.jsonl and personal.jsonl: formats and languages the other files do not have, by hand-written templates.

    python tests/data/pii/make_adversarial.py

A template holds ``{TYPE}`` or ``{TYPE:form}`` where a value goes; ``values`` makes one with a right check digit (python-stdnum as
the maker, so the detector's own arithmetic is not its judge). Each template is filled several times from one seed. Rows
without a slot are hard negatives. Nothing here is real.
"""

from __future__ import annotations

import base64
import json
import random
import re
import string
from collections.abc import Callable
from pathlib import Path

from stdnum import iban as stdnum_iban
from stdnum import luhn, verhoeff
from stdnum.br import cnpj, cpf
from stdnum.cl import rut
from stdnum.de import idnr
from stdnum.es import dni, nie
from stdnum.fr import nir, siret
from stdnum.iso7064 import mod_11_10
from stdnum.gb import nhs
from stdnum.it import codicefiscale
from stdnum.mx import curp, rfc
from stdnum.nl import bsn
from stdnum.no import fodselsnummer
from stdnum.pl import pesel
from stdnum.pt import nif as pt_nif

HERE = Path(__file__).parent
FILES = (("adversarial", "adv", 7150), ("personal", "per", 7151))
"""Name of the templates and of what is made of them, how its rows are called, seed: each file by itself."""
RNG = random.Random()
ALNUM = string.ascii_letters + string.digits
SLOT = re.compile(r"(?<![$])\{([A-Z_]+)(?::([a-z0-9_]+))?\}")


def digits(count: int) -> str:
    return "".join(RNG.choices(string.digits, k=count))


def token(count: int, alphabet: str = ALNUM) -> str:
    """Return random characters, at least one digit and one letter among them."""
    while True:
        made = "".join(RNG.choices(alphabet, k=count))
        if any(c.isdigit() for c in made) and any(c.isalpha() for c in made):
            return made


def card(form: str) -> str:
    prefix = RNG.choice(("4539", "4716", "5425", "2223", "6011"))
    number = prefix + digits(11)
    number += luhn.calc_check_digit(number)
    join = {"": " ", "dash": "-", "bare": "", "dots": "."}[form]
    return join.join(number[i : i + 4] for i in range(0, 16, 4))


def make_cpf(form: str) -> str:
    body = digits(9)
    number = body + cpf._calc_check_digits(body)
    return number if form == "bare" else cpf.format(number)


def make_cnpj(form: str) -> str:
    body = digits(8) + "0001"
    number = body + cnpj.calc_check_digits(body)
    return number if form == "bare" else cnpj.format(number)


def make_iban(form: str) -> str:
    country, body = RNG.choice((("DE", digits(18)), ("FR", digits(20) + digits(3)), ("PT", digits(21)), ("NL", "INGB" + digits(10))))
    number = country + stdnum_iban.calc_check_digits(country + "00" + body) + body
    gap = "  " if form == "wide" else " "
    return number if form == "bare" else gap.join(number[i : i + 4] for i in range(0, len(number), 4))


def make_phone(form: str) -> str:
    match form:
        case "br":
            return f"({RNG.choice(('11', '21', '41', '85'))}) 9{RNG.randint(6000, 9999)}-{digits(4)}"
        case "us":
            return f"({RNG.choice(('415', '212', '303'))}) {RNG.randint(230, 989)}-{digits(4)}"
        case "de":
            return f"+49 {RNG.choice(('151', '160', '172'))} {digits(8)}"
        case "fr":
            return "06 " + " ".join(digits(2) for _ in range(4))
        case "es":
            return f"+34 6{digits(2)} {digits(3)} {digits(3)}"
        case "it":
            return f"+39 33{digits(1)} {digits(7)}"
        case "pt":
            return f"+351 91{digits(1)} {digits(3)} {digits(3)}"
        case "usdash":
            return f"{RNG.choice(('415', '212', '303'))}-{RNG.randint(230, 989)}-{digits(4)}"
        case "usdots":
            return f"{RNG.choice(('415', '212', '303'))}.{RNG.randint(230, 989)}.{digits(4)}"
        case "brbare":
            return f"119{RNG.randint(6000, 9999)}{digits(4)}"
        case "frdots":
            return "01." + ".".join(digits(2) for _ in range(4))
        case "deland":
            return f"030/{RNG.randint(2, 9)}{digits(6)}"
        case "nlland":
            return f"06 {RNG.randint(1, 5)}{digits(7)}"
        case "nl":
            return f"+31 6 {RNG.randint(1, 5)}{digits(7)}"
        case "pl":
            return f"+48 601 {digits(3)} {digits(3)}"
        case "usbare":
            return RNG.choice(("415", "212", "303")) + str(RNG.randint(230, 989)) + digits(4)
        case "no":
            return f"{RNG.randint(4, 9)}{digits(1)} {digits(2)} {digits(2)} {digits(2)}"
        case "fi":
            return f"040 {digits(7)}"
        case "ie":
            return f"08{RNG.randint(3, 9)} {digits(3)} {digits(4)}"
        case "debare":
            return f"015{RNG.randint(1, 9)}{digits(8)}"
        case "esbare":
            return f"6{digits(8)}"
        case "ptbare":
            return f"91{RNG.randint(1, 9)} {digits(3)} {digits(3)}"
        case "brspoken":
            return f"{RNG.choice(('11', '21', '85'))} 9 {RNG.randint(6000, 9999)} {digits(4)}"
        case "brtrunk":
            return f"0{RNG.choice(('11', '21', '85'))} 9{RNG.randint(6000, 9999)}-{digits(4)}"
        case "se":
            return f"070-{RNG.randint(100, 999)} {digits(2)} {digits(2)}"
        case "brland":
            return f"{RNG.randint(2, 5)}{digits(3)}-{digits(4)}"
        case "e164":
            return f"55119{RNG.randint(6000, 9999)}{digits(4)}"
        case "plus":
            return f"%2B49+%280%29+151+{digits(8)}"
        case "bare":
            return f"+5511 9{RNG.randint(6000, 9999)}{digits(4)}"
        case _:
            return f"+44 7{RNG.randint(400, 599)} {digits(6)}"


def make_email(form: str) -> str:
    if form == "pct":
        return make_email("").replace("@", "%40").replace("+", "%2B")
    name = RNG.choice(("lucia.ferri", "j_weber", "m.oconnor", "pedro+nf", "k-nowak", "a.b.c", "zoe99"))
    return f"{name}{RNG.randint(1, 99)}@{RNG.choice(('example.com', 'correio.pt', 'posta.it', 'firma.de', 'uni.example.ac.uk', 'acme.io'))}"


def make_date(form: str) -> str:
    y, m, d = RNG.randint(1945, 2004), RNG.randint(1, 12), RNG.randint(13, 28)
    months = {
        "words": f"{d} March {y}", "ptwords": f"{d} de março de {y}", "eswords": f"{d} de agosto de {y}", "frwords": f"{d} février {y}",
        "plus": f"{d}+febbraio+{y}", "travel": f"{d}JAN{y}", "fiwords": f"{d}. tammikuuta {y}",
    }  # fmt: skip
    if form in months:
        return months[form]
    return {"iso": f"{y}-{m:02}-{d}", "dotted": f"{d}.{m:02}.{y}", "us": f"{m:02}/{d}/{y}"}.get(form, f"{d}/{m:02}/{y}")


def make_password(form: str) -> str:
    match form:
        case "signs":
            return "".join(RNG.sample("qXw7Zk", k=3)) + RNG.choice(("(", "%s", "&", "%P", "[")) + token(5) + RNG.choice(("", ")", "*", "@&"))
        case "lead":
            return RNG.choice(("&Hf", "%Sd", "(Xq", "*Zk", "^Pw")) + token(8)
        case "random":
            return token(7) + RNG.choice("!#%*?") + token(6)
        case "plain":
            return token(11)
        case "letters":
            return RNG.choice("bcdfghjklmnpqrstvwxz") + "".join(RNG.choice(("kRt", "xBq", "wZd", "nLs")) for _ in range(3)) + RNG.choice("BCDFG")
        case "hex":
            return token(32, "0123456789abcdef")
        case "words":
            return "-".join(RNG.sample(("amber", "falcon", "lagoon", "cedar", "velvet", "maple", "otter", "quartz"), k=4))
    return RNG.choice(("Tr0ub4dor", "Sommer", "verde", "K0pfhoerer", "gatoNegro", "m1nh@", "caffe")) + RNG.choice(("!", "#", "@", "$")) + digits(3)


def make_api_key(form: str) -> str:
    match form:
        case "aws":
            return "AKIA" + "".join(RNG.choices(string.ascii_uppercase + "234567", k=16))
        case "awssecret":
            return token(40, ALNUM + "+/")
        case "github":
            return "ghp_" + token(36)
        case "openai":
            return "sk-proj-" + token(74)
        case "stripe":
            return "sk_live_" + token(24)
        case "slack":
            return f"xoxb-{digits(12)}-{digits(12)}-{token(24)}"
        case "google":
            return "AIza" + token(35)
        case "gitlab":
            return "glpat-" + token(20)
        case "npm":
            return "npm_" + token(36)
        case "hf":
            return "hf_" + token(34, string.ascii_letters + "0123456789")
        case "basic":
            return base64.b64encode(f"svc-{token(6)}:{token(14)}".encode()).decode()
        case "hex32":
            return token(32, "0123456789abcdef")
        case "b64":
            return base64.b64encode(RNG.randbytes(32)).decode()
        case "long":
            return token(120)
        case "hex":
            return token(40, "0123456789abcdef")
        case "short":
            return token(20)
        case "serial":
            return "-".join(token(5, "ABCDEFGHJKMNPQRSTVWXYZ23456789") for _ in range(4))
        case "base32":
            return token(16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
        case "telegram":
            return f"{RNG.choice('123456789')}{digits(9)}:AA{token(33)}"
        case "teams":
            ids = [NOISE["uuid"]() for _ in range(3)]
            return f"https://acme.webhook.office.com/webhookb2/{ids[0]}@{ids[1]}/IncomingWebhook/{NOISE['hex32']()}/{ids[2]}"
        case _:
            return token(32)


def make_jwt(_: str) -> str:
    parts = ({"alg": "HS256", "typ": "JWT"}, {"sub": digits(9), "exp": 1900000000})
    return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts) + "." + token(43)


def make_nir(_: str) -> str:
    body = RNG.choice("12") + f"{RNG.randint(50, 99)}{RNG.randint(1, 12):02}{RNG.randint(10, 75)}{digits(6)}"
    return f"{body[0]} {body[1:3]} {body[3:5]} {body[5:7]} {body[7:10]} {body[10:13]} {nir.calc_check_digits(body)}"


def make_de(_: str) -> str:
    while True:
        body = RNG.choice("123456789") + digits(9)
        counts = sorted(body.count(c) for c in set(body))
        if counts[-1] in (2, 3) and counts.count(counts[-1]) == 1 and counts[-2:-1] in ([1], []):
            number = body + mod_11_10.calc_check_digit(body)
            if idnr.is_valid(number):
                return f"{number[:2]} {number[2:5]} {number[5:8]} {number[8:]}"


def make_it(_: str) -> str:
    body = "".join(RNG.choices("BCDFGLMNPRSTV", k=6)) + f"{RNG.randint(50, 99)}{RNG.choice('ABCDEHLMPRST')}{RNG.randint(1, 28):02}H501"
    return body + codicefiscale.calc_check_digit(body)


def make_bsn(_: str) -> str:
    while True:
        number = RNG.choice("123456789") + digits(8)
        if bsn.is_valid(number):
            return number


def make_aadhaar(_: str) -> str:
    body = RNG.choice("23456789") + digits(10)
    number = body + verhoeff.calc_check_digit(body)
    return f"{number[:4]} {number[4:8]} {number[8:]}"


def make_pesel(_: str) -> str:
    body = f"{RNG.randint(50, 99)}{RNG.randint(1, 12):02}{RNG.randint(1, 28):02}{digits(4)}"
    return body + pesel.calc_check_digit(body)


def make_siret(_: str) -> str:
    body = digits(8)
    siren = body + luhn.calc_check_digit(body)
    number = siren + "0001"
    number += luhn.calc_check_digit(number)
    assert siret.is_valid(number)
    return f"{number[:3]} {number[3:6]} {number[6:9]} {number[9:]}"


def make_pt(_: str) -> str:
    body = RNG.choice("123") + digits(7)
    return body + pt_nif.calc_check_digit(body)


def make_dni(form: str) -> str:
    body = digits(8)
    letter = dni.calc_check_digit(body)
    return f"{body[:2]}.{body[2:5]}.{body[5:]}-{letter}" if form == "dots" else body + letter


def make_nhs(_: str) -> str:
    while True:
        number = RNG.choice("4567") + digits(9)
        if nhs.is_valid(number):
            return f"{number[:3]} {number[3:6]} {number[6:]}"


def make_rut(_: str) -> str:
    body = RNG.choice("12") + digits(7)
    return f"{body[:2]}.{body[2:5]}.{body[5:]}-{rut.calc_check_digit(body)}"


def make_curp(_: str) -> str:
    body = f"{''.join(RNG.choices('BCDFG', k=1))}A{''.join(RNG.choices('BCDFG', k=2))}{RNG.randint(50, 99)}0{RNG.randint(1, 9)}{RNG.randint(10, 28)}HDFRRL0"
    return body + curp.calc_check_digit(body)


def make_nie(_: str) -> str:
    body = RNG.choice("XYZ") + digits(7)
    return body + nie.calc_check_digit(body)


def make_ip(form: str) -> str:
    if form == "six":
        return f"2001:db8:{RNG.randrange(0x1000, 0xFFFF):x}::{RNG.randrange(0x100, 0xFFF):x}"
    address = f"{RNG.choice((10, 172, 192, 203, 81))}.{RNG.randint(16, 31)}.{RNG.randint(0, 255)}.{RNG.randint(1, 254)}"
    return address + "/24" * (form == "net")


def make_pis(_: str) -> str:
    body = "1" + digits(9)
    check = 11 - sum(int(d) * w for d, w in zip(body, (3, 2, 9, 8, 7, 6, 5, 4, 3, 2), strict=True)) % 11
    number = body + str(check % 11 % 10)
    return f"{number[:3]}.{number[3:8]}.{number[8:10]}-{number[10]}"


def make_cns(_: str) -> str:
    while True:
        number = "7" + digits(14)
        if sum(int(d) * w for d, w in zip(number, range(15, 0, -1), strict=True)) % 11 == 0:
            return number


def make_pix(_: str) -> str:
    raw = token(32, "0123456789abcdef")
    return f"{raw[:8]}-{raw[8:12]}-4{raw[13:16]}-{RNG.choice('89ab')}{raw[17:20]}-{raw[20:]}"


def make_rfc(form: str) -> str:
    birth = f"{RNG.randint(50, 99)}0{RNG.randint(1, 9)}{RNG.randint(10, 28)}"
    body = "".join(RNG.choices("BCDFG", k=1)) + "A" + "".join(RNG.choices("BCDFG", k=2))
    number = body + birth + "T" + RNG.choice("123456789")
    number += rfc.calc_check_digit(number)
    return f"{number[:4]}-{number[4:10]}-{number[10:]}" if form == "dash" else number


def make_fnr(_: str) -> str:
    while True:
        body = f"{RNG.randint(1, 28):02}{RNG.randint(1, 12):02}{RNG.randint(50, 99)}{RNG.randint(0, 499):03}"
        first = fodselsnummer.calc_check_digit1(body)
        second = fodselsnummer.calc_check_digit2(body + first)
        if fodselsnummer.is_valid(body + first + second):
            return body + first + second


def make_hetu(_: str) -> str:
    body = f"{RNG.randint(1, 28):02}{RNG.randint(1, 12):02}{RNG.randint(50, 99)}"
    serial = f"{RNG.randint(2, 899):03}"
    return f"{body}-{serial}{'0123456789ABCDEFHJKLMNPRSTUVWXY'[int(body + serial) % 31]}"


def make_personnummer(form: str) -> str:
    body = f"{RNG.randint(50, 99)}{RNG.randint(1, 12):02}{RNG.randint(1, 28):02}{digits(3)}"
    number = body + luhn.calc_check_digit(body)
    return f"{'' if form == 'ten' else '19'}{number[:6]}-{number[6:]}"


def make_mbi(form: str) -> str:
    letters = "ACDEFGHJKMNPQRTUVWXY"
    made = [RNG.choice(letters if c == "A" else "0123456789") for c in "0A00A00AA00"]
    made[0] = RNG.choice("123456789")
    text = "".join(made)
    return text if form == "bare" else f"{text[:4]}-{text[4:7]}-{text[7:]}"


VALUES: dict[str, Callable[[str], str]] = {
    "CREDIT_CARD": card, "CPF": make_cpf, "CNPJ": make_cnpj, "IBAN": make_iban, "PHONE": make_phone, "EMAIL": make_email,
    "DATE_OF_BIRTH": make_date, "PASSWORD": make_password, "API_KEY": make_api_key, "JWT": make_jwt, "FR_NIR": make_nir,
    "DE_TAX_ID": make_de, "IT_FISCAL_CODE": make_it, "NL_BSN": make_bsn, "IN_AADHAAR": make_aadhaar, "PL_PESEL": make_pesel,
    "FR_SIRET": make_siret, "PT_NIF": make_pt, "ES_NIF": make_dni, "ES_NIE": make_nie, "IP_ADDRESS": make_ip,
    "UK_NHS": make_nhs, "CL_RUT": make_rut, "MX_CURP": make_curp, "UK_NINO": lambda _: f"AB {digits(2)} {digits(2)} {digits(2)} C",
    "US_SSN": lambda form: ("{}{}{}" if form == "bare" else "{}-{}-{}").format(
        RNG.randint(101, 665), RNG.randint(10, 99), RNG.randint(1000, 9999)
    ),
    "BR_CNS": make_cns, "BR_PIS": make_pis, "BR_PIX_KEY": make_pix, "MX_RFC": make_rfc, "NO_FNR": make_fnr, "FI_HETU": make_hetu,
    "SE_PERSONNUMMER": make_personnummer, "US_MBI": make_mbi, "US_PASSPORT": lambda _: RNG.choice("AC") + digits(8),
    "CRYPTO_WALLET": lambda _: "0x" + token(40, "0123456789abcdef"),
    "MAC_ADDRESS": lambda _: ":".join(token(2, "0123456789abcdef") for _ in range(6)),
    "URL_CREDENTIALS": lambda form: f"{RNG.choice(('app', 'svc_reader', 'root'))}{'/' if form == 'oracle' else ':'}{token(14)}",
    "PRIVATE_KEY": lambda _: "-----BEGIN EC PRIVATE KEY-----\n" + token(64) + "\n" + token(40) + "==\n-----END EC PRIVATE KEY-----",
}  # fmt: skip


NOISE: dict[str, Callable[[], str]] = {
    "uuid": lambda: "-".join("".join(RNG.choices("0123456789abcdef", k=k)) for k in (8, 4, 4, 4, 12)),
    "hex32": lambda: "".join(RNG.choices("0123456789abcdef", k=32)),
    "b64key": lambda: base64.b64encode(RNG.randbytes(16)).decode(),
    "hex40": lambda: "".join(RNG.choices("0123456789abcdef", k=40)),
    "hex64": lambda: "".join(RNG.choices("0123456789abcdef", k=64)),
    "hex7": lambda: "".join(RNG.choices("0123456789abcdef", k=7)),
    "epoch": lambda: str(RNG.randint(1_600_000_000, 1_790_000_000)),
    "epochms": lambda: str(RNG.randint(1_600_000_000_000, 1_790_000_000_000)),
    "d5": lambda: digits(5), "d8": lambda: digits(8), "d10": lambda: RNG.choice("13579") + digits(9), "d12": lambda: digits(12),
    "ver": lambda: f"{RNG.randint(0, 30)}.{RNG.randint(0, 30)}.{RNG.randint(0, 300)}",
    "ver4": lambda: f"{RNG.randint(90, 130)}.0.{RNG.randint(1000, 6999)}.{RNG.randint(10, 199)}",
    "float": lambda: f"{RNG.random() * 100:.15f}", "lat": lambda: f"-{RNG.random() * 60:.7f}",
    "date": lambda: make_date("iso"), "b64": lambda: base64.b64encode(RNG.randbytes(60)).decode(),
    "isbn": lambda: f"978-{RNG.randint(0, 9)}-{digits(3)}-{digits(5)}-{RNG.randint(0, 9)}",
}  # fmt: skip
"""What hard negatives hold, as ``<<name>>``."""
_NOISE = re.compile(r"<<([a-z0-9]+)>>")


def mistyped(value: str) -> str:
    """Return a value whose last character is another, so its check is wrong."""
    last = value[-1]
    return value[:-1] + (str((int(last) + 1) % 10) if last.isdigit() else chr((ord(last) - 64) % 26 + 65))


def render(template: str) -> tuple[str, list[dict[str, object]]]:
    """Fill the slots of a template; return the text and its gold spans."""
    template = _NOISE.sub(lambda found: NOISE[found[1]](), template)
    text, spans, done = "", [], 0
    for slot in SLOT.finditer(template):
        text += template[done : slot.start()]
        value = mistyped(VALUES[slot[1]]("")) if slot[2] == "wrong" else VALUES[slot[1]](slot[2] or "")
        spans.append({"start": len(text), "end": len(text) + len(value), "type": slot[1]})
        text += value
        done = slot.end()
    return text + template[done:], spans


def write(name: str, prefix: str, seed: int) -> None:
    """Write one file."""
    RNG.seed(seed)
    rows = []
    sources = (HERE / f"{name}_templates.txt").read_text(encoding="utf-8")
    for block in sources.split("\n%% ")[1:]:
        head, _, template = block.partition("\n")
        lang, where, times = head.split()
        template = template.rstrip("\n")
        for _ in range(int(times)):
            text, spans = render(template)
            rows.append({
                "id": f"{prefix}{len(rows):04}", "text": text, "spans": spans, "lang": lang, "slice": where, "hard_negative": not spans,
            })  # fmt: skip
    out = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (HERE / f"{name}.jsonl").write_text(out, encoding="utf-8")
    print(name, len(rows), "rows,", sum(len(row["spans"]) for row in rows), "spans")  # type: ignore[arg-type]


def main() -> None:
    """Write the files."""
    for name, prefix, seed in FILES:
        write(name, prefix, seed)


if __name__ == "__main__":
    main()
