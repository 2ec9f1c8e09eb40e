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
    ("M: 081 294 4065", "081 294 4065"),
    ("8-903-123-45-67", "8-903-123-45-67"),
    ("8 800 555-35-35", "8 800 555-35-35"),
    ("138 0013 8000", "138 0013 8000"),
    ("携帯番号は09012345678です", "09012345678"),
)


@pytest.mark.parametrize(("text", "value"), PHONES, ids=[value for _, value in PHONES])
def test_telephone_number_of_asia_or_the_east_is_found(text: str, value: str) -> None:
    """National formats and labels of other scripts count as much as western ones."""
    for detector in (DETECTOR, FALLBACK):
        found = detector.find(text)

        assert [("PHONE", value)] == [(f.kind, text[f.start : f.end]) for f in found]


NOTHING = (
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
        " name | birth_date \n------+------------\n Ann  | 1990-01-02\n(1 row)",
        "+------+------------+\n| name | dob        |\n+------+------------+\n| Ann  | 1990-01-02 |\n+------+------------+",
    ],
)
def test_line_under_the_header_of_a_database_client_is_no_row(text: str) -> None:
    """The clients psql and mysql draw a rule between header and rows."""
    assert [("DATE_OF_BIRTH", "1990-01-02")] == [(f.kind, text[f.start : f.end]) for f in DETECTOR.find(text)]
