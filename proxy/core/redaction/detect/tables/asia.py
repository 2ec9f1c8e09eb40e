"""Identifiers of Asia, Africa and Oceania."""

from __future__ import annotations

from proxy.core.redaction.detect.kinds import Kind

KINDS: tuple[Kind, ...] = (
    Kind(
        "TR_TCKN", "Identity number", "TR", 4, "10000000146", "Law 5490", check="tr_tckn",
        labels=("tckn", "t c kimlik", "tc kimlik", "kimlik no", "tc kimlik no", "t c kimlik no", "kimlik numarasi", "tc no",
                "turkish id", "tckn numarasi", "t c no", "kimlik", "tc kimlik numarasi"),
        counts=(11,),
    ),
    Kind(
        "RU_INN", "Taxpayer number", "RU", 4, "500100732259", "FNS order MMB-7-14/435", check="ru_inn",
        labels=("inn", "\u0418\u041d\u041d", "\u0438\u043d\u043d", "russian tax id"), counts=(10, 12),
    ),
    Kind(
        "ZA_ID", "Identity number", "ZA", 4, "7503305044089", "Identification Act 68 of 1997", check="za_id",
        labels=("south african id", "south african id number", "sa id", "rsa id", "za id", "south africa id", "refugee id number",
                "permanent resident number", "sa id number", "id number", "identity number", "rsa id number", "id no"),
        counts=(13,),
    ),
    Kind(
        "CN_RIC", "Resident identity number", "CN", 3, "11010519491231002X", "GB 11643-1999", check="cn_ric",
        labels=("\u8eab\u4efd\u8bc1", "\u8eab\u4efd\u8bc1\u53f7", "\u8eab\u4efd\u8bc1\u53f7\u7801", "\u8eab\u5206\u8bc1",
                "chinese id", "resident identity card", "shenfenzheng", "\u516c\u6c11\u8eab\u4efd\u53f7\u7801", "\u8eab\u4efd\u8b49",
                "id card", "id card no", "id card number", "id card num", "身份証"),
        strong=("000000000000000000", "00000000000000000A", "000000 00000000 0000", "000000 00000000 000A"), counts=(18,),
    ),
    Kind(
        "KR_RRN", "Resident registration number", "KR", 3, "960121-1234567", "MOIS", check="kr_rrn",
        labels=("rrn", "resident registration number", "\uc8fc\ubbfc\ub4f1\ub85d\ubc88\ud638", "\uc8fc\ubbfc\ubc88\ud638",
                "\uc8fc\ubbfc\ub4f1\ub85d", "korean rrn", "jumin", "\uc678\uad6d\uc778\ub4f1\ub85d\ubc88\ud638"),
        strong=("000000-0000000",), counts=(13,),
    ),
    Kind(
        "JP_MY_NUMBER", "Individual number", "JP", 4, "123456789018", "Act 27 of 2013", check="jp_my_number",
        labels=("my number", "\u30de\u30a4\u30ca\u30f3\u30d0\u30fc", "\u500b\u4eba\u756a\u53f7", "mynumber", "kojin bango",
                "individual number"),
        counts=(12,),
    ),
    Kind(
        "SG_NRIC", "National registration number", "SG", 3, "S1234567D", "ICA", check="sg_nric",
        labels=("nric", "fin", "nric fin", "nric number", "singapore id", "foreign identification number", "nric no"),
        strong=("A0000000A",), labelled=("A-0000000-A", "A0000000-A"),
    ),
    Kind(
        "HK_ID", "Identity card number", "HK", 3, "G123456(A)", "Immigration Department", check="hk_id",
        labels=("hkid", "hong kong id", "hk id", "hkic", "hong kong identity card", "\u9999\u6e2f\u8eab\u4efd\u8b49",
                "hkid number", "hkid no", "identity card"),
        strong=("A000000(0)", "A000000(A)", "AA000000(0)", "AA000000(A)"), labelled=("A0000000", "A000000A", "AA0000000", "AA000000A"),
    ),
    Kind(
        "IN_AADHAAR", "Aadhaar number", "IN", 5, "2341 2341 2346", "UIDAI", check="in_aadhaar",
        labels=("aadhaar", "aadhar", "aadhaar number", "aadhar number", "aadhaar no", "uid", "uidai", "aadhaar card", "adhaar", "adhar",
                "aadhar card", "\u0906\u0927\u093e\u0930",
                "aadhaar card no", "aadhaar card number", "aadhar card no", "aadhar card number"),
        soft=("0000 0000 0000", "0000-0000-0000", "0000:0000:0000", "0000.0000.0000"), counts=(12,),
    ),
    Kind(
        "IN_PAN", "Permanent account number", "IN", 3, "ABCPD1234Z", "Income Tax Department", check="in_pan",
        labels=("pan", "pan number", "pan card", "permanent account number", "pan no", "income tax pan",
                "pan card no", "pan card number", "पैन", "पैन"),
        strong=("AAAAA0000A",),
    ),
    Kind(
        "IN_GSTIN", "Goods and services tax number", "IN", 3, "27AAPFU0939F1ZV", "GSTN", check="in_gstin",
        labels=("gstin", "gst", "gst number", "gst registration", "gst no", "gstin number"),
        strong=("00AAAAA0000A0A0", "00AAAAA0000A0AA", "00AAAAA0000AAA0", "00AAAAA0000AAAA"),
        labelled=("00AAAAA0000A0A",),
    ),
    Kind(
        "AU_TFN", "Tax file number", "AU", 4, "876 543 210", "ATO", check="au_tfn",
        labels=("tfn", "tax file number", "tax file no", "tax file"),
        counts=(8, 9),
    ),
    Kind(
        "AU_ABN", "Business number", "AU", 4, "51 824 753 556", "ABR", check="au_abn",
        labels=("abn", "australian business number", "abn number"),
        soft=("00 000 000 000",), counts=(11,),
    ),
)  # fmt: skip
