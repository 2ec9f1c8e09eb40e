"""Values announced in languages without Latin letters, in other calendars, and in tables set by blanks."""

from __future__ import annotations

import pytest

from proxy.core.redaction.detect import build_detector

DETECTOR = build_detector()
FALLBACK = build_detector(engine="re")

BIRTHS = (
    ("生年月日:昭和60年5月12日", "昭和60年5月12日"),
    ("出生於民國79年5月12日。", "民國79年5月12日"),
    ("山田花子さん(1987/10/02生まれ)からです", "1987/10/02"),
    ("李雷,1990年5月12日生,男", "1990年5月12日"),
    ("김철수 1990년 5월 12일생", "1990년 5월 12일"),
    ("생년월일: 1990. 5. 12.", "1990. 5. 12"),
    ("25 Ocak 1995 doğumlu hasta", "25 Ocak 1995"),
    ("doğum tarihi 3 Ağustos 1980", "3 Ağustos 1980"),
    ("Родился 15 августа 1980 года в Казани", "15 августа 1980"),
    ("Петров, 12.05.1990 г.р., слесарь", "12.05.1990"),
    ("Дата народження: 7 листопада 1971 року", "7 листопада 1971"),
    ("ДатаРождения: 12.05.1990", "12.05.1990"),
    ("Γεννήθηκε στις 9 Μαΐου 1966", "9 Μαΐου 1966"),
    ("תאריך לידה: 12 במאי 1990", "12 במאי 1990"),
    ('{"תאריך_לידה": "1990-05-12"}', "1990-05-12"),
    ("تاريخ الميلاد: 12 مايو 1990", "12 مايو 1990"),
    ("تاریخ تولد ۱۳۷۰/۰۲/۳۱", "۱۳۷۰/۰۲/۳۱"),
    ("जन्म तिथि १२/०५/१९९०", "१२/०५/१९९०"),
    ("วันเกิด 12/05/2533", "12/05/2533"),
    ("วันเดือนปีเกิด 5 มกราคม 2533", "5 มกราคม 2533"),
    ("ngày sinh 12 tháng 5 năm 1990", "12 tháng 5 năm 1990"),
    ("Pelanggan lahir 24-09-1959", "24-09-1959"),
    ("tgl lahir 17 Agustus 1985", "17 Agustus 1985"),
    ("Datum narození: 25. 1. 1946", "25. 1. 1946"),
    ("narozen 12. března 1980", "12. března 1980"),
    ("Született: 1948. augusztus 20.", "1948. augusztus 20"),
    ("Születési dátum: 1972. 04. 23.", "1972. 04. 23"),
    ("născută la 3 ianuarie 1988", "3 ianuarie 1988"),
    ("დაბადების თარიღი: 12.05.1990", "12.05.1990"),
    ("ծննդյան ամսաթիվ 12.05.1990", "12.05.1990"),
    ("A beteg szül. ideje: 1954. 08. 09.", "1954. 08. 09"),
    ("dob=12051990", "12051990"),
    ('{"tanggal_lahir":"1979-06-20"}', "1979-06-20"),
    ('{"ngay_sinh":"1979-06-20"}', "1979-06-20"),
    ("ΗΜΕΡΟΜΗΝΙΑ ΓΕΝΝΗΣΗΣ 12/05/1990", "12/05/1990"),
    ("дата рождения или рождённый 12.05.1990", "12.05.1990"),
    ("User(id=3, dob=datetime.date(1990, 1, 2))", "1990, 1, 2"),
    ("AGENT: And the date of birth on the account?\n[00:14:25] CALLER: 4 March 1953.", "4 March 1953"),
)


@pytest.mark.parametrize(("text", "value"), BIRTHS, ids=[value for _, value in BIRTHS])
def test_date_after_a_word_of_birth_of_any_language_is_found_in_full(text: str, value: str) -> None:
    """People write their day of birth in their own words, months and calendars."""
    for detector in (DETECTOR, FALLBACK):
        found = detector.find(text)

        assert [("DATE_OF_BIRTH", value)] == [(f.kind, text[f.start : f.end]) for f in found]


PHONES = (
    ("SĐT: 0912336403", "0912336403"),
    ("ลูกค้าแจ้งเบอร์ 0812347111 ครับ", "0812347111"),
    ("Μαρία — κιν. 6912349208", "6912349208"),
    ("شماره موبایل من ۰۹۱۲۳۴۵۵۵۶۸ است", "۰۹۱۲۳۴۵۵۵۶۸"),
    ("اتصل بنا على 050 127 6822 اليوم", "050 127 6822"),
    ('{"номер_телефона": "9123456789"}', "9123456789"),
    ("Το τηλέφωνό μου είναι 691 234 1016", "691 234 1016"),
    ("شماره تماس ٠٩١٢٣٤٥٥٥٦٨", "٠٩١٢٣٤٥٥٥٦٨"),
    ("M: 081 294 4065", "081 294 4065"),
    ("8-903-123-45-67", "8-903-123-45-67"),
    ("8 800 555-35-35", "8 800 555-35-35"),
    ("138 0013 8000", "138 0013 8000"),
    ("携帯番号は09012345678です", "09012345678"),
    ("\U0001f4de 9123456789", "9123456789"),
    ("telefon: (73)/681-9303", "(73)/681-9303"),
    ("tel: 00421 39 308 1614", "00421 39 308 1614"),
    ("0 (532) 123 45 67", "0 (532) 123 45 67"),
    ("8(916)123-45-67", "8(916)123-45-67"),
    ("02)123-4567", "02)123-4567"),
    ("HP: 0812-3456-7890", "0812-3456-7890"),
    ("ტელეფონი: 599123456", "599123456"),
)


LISTS = ("客户手机13800138000、13900139000", "телефоны 9161234567 и 9167654321", "telepon 0812345678 dan 0812345679")


@pytest.mark.parametrize("text", LISTS)
def test_second_number_of_a_list_is_of_the_first_one_s_kind(text: str) -> None:
    """Whoever has two telephones writes their word for "and" between them."""
    assert ["PHONE", "PHONE"] == [f.kind for f in DETECTOR.find(text)]


@pytest.mark.parametrize(("text", "value"), PHONES, ids=[value for _, value in PHONES])
def test_telephone_number_of_asia_or_the_east_is_found(text: str, value: str) -> None:
    """National formats and labels of other scripts count as much as western ones."""
    for detector in (DETECTOR, FALLBACK):
        found = detector.find(text)

        assert [("PHONE", value)] == [(f.kind, text[f.start : f.end]) for f in found]


NOTHING = (
    "rows:\n4478 8520\n7616 1412\n",
    "пользователь 12345678 вошёл",
    "показатель 1234567 вырос",
    "инновация 7707083893",
    "двигатель 7707083893",
    "王先生2024年5月12日来店",
    "配送日 2024年5月12日",
    "дата доставки 12.05.2024 г. по адресу",
    "datum dodání 12. 5. 2024",
    "teslim tarihi 12 Ocak 2024",
    "お問い合わせ番号 2341-2341-2346",
    "运单号 2341 2341 2346",
    "商品条码4242339785473",
    "version 000 123 4567",
)


@pytest.mark.parametrize("text", NOTHING)
def test_number_of_everyday_life_in_another_script_is_left_alone(text: str) -> None:
    """A label inside a longer word announces nothing, and a date without a birth is not personal."""
    for detector in (DETECTOR, FALLBACK):
        assert [] == detector.find(text)


TECHNICAL = (
    "x**2 + 499328555*uk_54 - 4828147466240000*t**12",
    'snapshot "docdb-2019-05-28-15-24-52"',
    '"EndTime": "2023-06-19T04:00:49.248000+00:00"',
    "51 Franklin Street, Boston, MA 02110-1301 USA",
    "6f 00 81 00 72 00 81 00 6c 00",
    "000000c: 616e 7561 6c20 7061 6765 2066  anual page",
    "52A0 529F 5305 5306 5317 531D",
    "00E9 ; [.2007.0021.0002] # LATIN SMALL",
    "0068 ; [.0000.002D.0002] # LATIN SMALL",
    "IEEE 754-2008, IEC 80000-13 and IEEE 802.15.4",
    "netlink: allow be16 and be32 types in all",
    "al2023-ami-ecs-hvm-2023.0.20251111-kernel-6.1",
    "merge cacae4329f into main",
    "SS\t+0451+03137\tAfrica/Juba",
    "CA\t+4953-09709\tAmerica/Winnipeg",
    "p[5::-2], y[::10], 163::, 800::800, alice:x:1000:1000::/home",
    "l1.52-.87 2.83-2.12 3.51.98.32 2.03.5 3.11z",
    'ObjectIdentifier("2.5.29.24")',
)


@pytest.mark.parametrize("text", TECHNICAL)
def test_number_of_programs_dumps_and_standards_is_left_alone(text: str) -> None:
    """Read in libraries, manuals and tables, where nothing of this kind is personal."""
    for detector in (DETECTOR, FALLBACK):
        assert [] == detector.find(text)


BESIDE = (
    ("tel + 55 11 98765-4321", "PHONE", "+ 55 11 98765-4321"),
    ("mac 0011.22ff.0002", "MAC_ADDRESS", "0011.22ff.0002"),
    ("VAT IE6433435F", "EU_VAT", "IE6433435F"),
    ("PAN: abcpd1234z", "IN_PAN", "abcpd1234z"),
    ("pan cacae4329f", "IN_PAN", "cacae4329f"),
    ("via fe80::1 dev eth0", "IP_ADDRESS", "fe80::1"),
    ("listen on 2001:db8::1.", "IP_ADDRESS", "2001:db8::1"),
    ("4111 1111 1111 1111 8ae2 and more", "CREDIT_CARD", "4111 1111 1111 1111"),
    ("DE12 4111 1111 1111 1111", "CREDIT_CARD", "4111 1111 1111 1111"),
    ("pay with card 5555655290970036 3) see 500", "CREDIT_CARD", "5555655290970036"),
    ("see site.id\nCard No. 4478 8520\n7616 1412\nTotal due", "CREDIT_CARD", "4478 8520\n7616 1412"),
    ("IBAN\nGR05 0187 9377\n6464 4523 5393 063\nPhone", "IBAN", "GR05 0187 9377\n6464 4523 5393 063"),
    ("id_card=M9907411", "HK_ID", "M9907411"),
    ("Name | Contact\nLim | 8123 6127", "PHONE", "8123 6127"),
    ("**4111111111111111**", "CREDIT_CARD", "4111111111111111"),
    ("de89 3704 0044 0532 0130 00", "IBAN", "de89 3704 0044 0532 0130 00"),
)


@pytest.mark.parametrize(("text", "kind", "value"), BESIDE, ids=[value for _, _, value in BESIDE])
def test_value_that_only_resembles_such_a_number_is_still_found(text: str, kind: str, value: str) -> None:
    """What keeps the false ones out must not cost a true one."""
    for detector in (DETECTOR, FALLBACK):
        assert [(kind, value)] == [(f.kind, text[f.start : f.end]) for f in detector.find(text)]


TABLE = (
    ("", "name", "tax file number", "dob"),
    ("0", "Ann", "268 917 155", "1973-05-30"),
    ("1", "Bob", "268917155", "12 May 1980"),
)
FOUND = [
    ("AU_TFN", "268 917 155"), ("DATE_OF_BIRTH", "1973-05-30"),
    ("AU_TFN", "268917155"), ("DATE_OF_BIRTH", "12 May 1980"),
]  # fmt: skip


def _aligned(gap: str, *, right: bool) -> str:
    widths = [max(len(row[i]) for row in TABLE) for i in range(4)]
    lines = (
        gap.join(cell.rjust(width) if right else cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in TABLE
    )
    return "\n".join(lines)


@pytest.mark.parametrize("text", [_aligned(" ", right=True), _aligned("  ", right=True), _aligned("   ", right=False)])
def test_cell_under_an_aligned_header_is_what_the_header_says(text: str) -> None:
    """Data frames and command output have no delimiter but their columns."""
    assert FOUND == [(f.kind, text[f.start : f.end]) for f in DETECTOR.find(text)]


@pytest.mark.parametrize(
    "text",
    [
        '{"columns": ["id", "dob", "tfn"], "rows": [[1, "1990-01-02", "876543210"], [2, "1991-01-02", null]]}',
        '[["name","dob","tfn"],["Ann","1990-01-02","876543210"],["Bo","1991-01-02",""]]',
    ],
)
def test_cell_of_a_row_in_json_is_what_the_array_of_names_says(text: str) -> None:
    """Data frames and query tools answer with names once and values in arrays."""
    found = [(f.kind, text[f.start : f.end]) for f in DETECTOR.find(text)]

    assert [("DATE_OF_BIRTH", "1990-01-02"), ("AU_TFN", "876543210"), ("DATE_OF_BIRTH", "1991-01-02")] == found


@pytest.mark.parametrize(
    "text",
    [
        " name | birth_date \n------+------------\n Ann  | 1990-01-02\n(1 row)",
        "+------+------------+\n| name | dob        |\n+------+------------+\n| Ann  | 1990-01-02 |\n+------+------------+",
    ],
)
def test_line_under_the_header_of_a_database_client_is_no_row(text: str) -> None:
    """The clients psql and mysql draw a rule between header and rows."""
    assert [("DATE_OF_BIRTH", "1990-01-02")] == [(f.kind, text[f.start : f.end]) for f in DETECTOR.find(text)]


@pytest.mark.parametrize(
    "text", ["narozen 12. bř", "ngày sinh 12 thá", "Született: 1958. má", "Родился 15 авг", "생일 1990년 5"]
)
def test_date_that_is_still_being_written_is_held_back(text: str) -> None:
    """A stream may not let go of the day before the month is there to make it a date."""
    assert text.index("1") >= DETECTOR.live_start(text)
