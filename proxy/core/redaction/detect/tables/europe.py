"""Identifiers of European countries."""

from __future__ import annotations

from proxy.core.redaction.detect.kinds import Kind

KINDS: tuple[Kind, ...] = (
    Kind(
        "UK_NINO", "National insurance number", "GB", 3, "AB 12 34 56 C", "HMRC NIM39110", check="uk_nino",
        labels=("nino", "national insurance", "national insurance number", "ni number", "ni no", "insurance number", "nat ins no",
                "nat insurance no", "nat insurance number", "national ins no", "n i number", "n i no",),
        strong=("AA 00 00 00 A", "AA000000A", "AA 000000 A", "AA 000000A", "AA-00-00-00-A", "AA-000000-A", "AA000000 A",
                "AA00 00 00A", "AA 00 00 00A"),
    ),
    Kind(
        "UK_NHS", "NHS number", "GB", 4, "943 476 5919", "NHS data dictionary", check="uk_nhs",
        labels=("nhs", "nhs number", "nhs no", "national health service", "national health service number", "nhs id"),
        counts=(10,),
    ),
    Kind(
        "DE_TAX_ID", "Tax number of a person", "DE", 4, "86095742719", "BZSt", check="de_tax_id",
        labels=("steuer id", "steuerid", "steueridentifikationsnummer", "steuerliche identifikationsnummer", "idnr", "id nr",
                "tax id", "steuernummer", "steuer identifikationsnummer", "identifikationsnummer", "steuer idnr", "tin",
                "steuerliche id", "steuer identnummer",),
        counts=(11,),
    ),
    Kind(
        "FR_NIR", "Social security number", "FR", 4, "2 55 08 14 168 025 38", "INSEE", check="fr_nir",
        labels=("nir", "numero de securite sociale", "securite sociale", "numero secu", "secu", "no ss", "insee",
                "n de securite sociale", "numero ss", "num secu",
                "numero de secu", "numero insee", "n secu", "no secu", "n ss"),
        strong=("0 00 00 00 000 000 00", "0 00 00 0A 000 000 00", "0 00 00 00 000 000 - 00", "0.00.00.00.000.000.00",
                "0-00-00-00-000-000-00"),
        soft=("000000000000000", "0000000000000 00"), labelled=("000000A00000000", "000000A000000 00"), counts=(15,),
    ),
    Kind(
        "FR_SIRET", "Establishment number", "FR", 5, "732 829 320 00074", "INSEE", check="fr_siret",
        labels=("siret", "numero siret", "n siret", "no siret"),
        counts=(14,),
    ),
    Kind(
        "ES_NIF", "Identity and tax number (DNI)", "ES", 3, "12345678Z", "Real Decreto 1553/2005", check="es_nif",
        labels=("dni", "nif", "d n i", "n i f", "documento nacional de identidad", "numero de dni", "dni nif"),
        strong=("00000000A", "00000000-A", "00.000.000-A", "00 000 000 A", "00.000.000A", "00000000 A", "00.000.000 A"),
        soft=("0000000-A", "0000000A"), labelled=("0.000.000-A", "00 000 000-A", "00-000-000-A"),
    ),
    Kind(
        "ES_NIE", "Foreigner number", "ES", 3, "X1234567L", "Real Decreto 557/2011", check="es_nie",
        labels=("nie", "n i e", "numero de identidad de extranjero", "numero de identificacion de extranjero"),
        strong=("A0000000A", "A-0000000-A", "A0000000-A", "A-0000000A", "A 0000000 A", "A-0.000.000-A"),
    ),
    Kind(
        "IT_FISCAL_CODE", "Fiscal code", "IT", 3, "RSSMRA85T10A562S", "DM 23/12/1976", check="it_fiscal_code",
        labels=("codice fiscale", "cod fiscale", "c f", "cf", "fiscal code", "cod fisc"),
        strong=("AAAAAA00A00A000A", "AAA AAA 00A00 A000A", "AAAAAA 00A00 A000A"),
    ),
    Kind(
        "PT_NIF", "Tax number", "PT", 4, "123456789", "Portaria 386/98", check="pt_nif",
        labels=("nif", "contribuinte", "numero de contribuinte", "numero fiscal", "numero de identificacao fiscal", "n contribuinte",
                "n i f", "nipc",
                "n de contribuinte", "no de contribuinte", "numero contribuinte", "identificacao fiscal",),
        counts=(9,),
    ),
    Kind(
        "NL_BSN", "Citizen service number", "NL", 4, "111222333", "RvIG", check="nl_bsn",
        labels=("bsn", "burgerservicenummer", "sofinummer", "sofi nummer", "burger service nummer", "bsn nummer",
                "burgerservicenr", "bsn nr",),
        counts=(8, 9),
    ),
    Kind(
        "BE_NRN", "National register number", "BE", 3, "85.07.30-033.28", "Rijksregister", check="be_nrn",
        labels=("rijksregisternummer", "numero national", "numero de registre national", "nationaal nummer", "registre national",
                "insz", "niss", "nrn", "rijksregister", "numero niss", "nationalregisternummer",
                "rijksregisternr", "rijksregister nr", "n national", "no national", "n de registre national",
                "num national", "registre national no",),
        strong=("00.00.00-000.00", "00.00.00-000-00", "00.00.00 000-00", "00.00.00 000.00"), counts=(11,),
    ),
    Kind(
        "EU_VAT", "VAT number", "EU", 4, "DE136695976", "European Commission, VIES FAQ 11", check="eu_vat",
        labels=("vat", "vat number", "vat id", "vat no", "vat reg", "ust idnr", "ust id", "ustid", "umsatzsteuer id", "partita iva",
                "p iva", "piva", "tva", "numero de tva", "tva intracommunautaire", "iva", "btw nummer", "btw", "vat registration",
                "umsatzsteuer identifikationsnummer", "numero tva", "nip", "momsnummer", "nif iva",
                "cif", "vat reg no", "vat registration number", "ust id nr", "u st id nr", "u st id",
                "n tva", "no tva", "alv numero", "dic"),
        loose="vat_digits", counts=(9, 10, 11), found_by="vat",
    ),
    Kind(
        "PL_PESEL", "Population number", "PL", 4, "44051401458", "MSWiA", check="pl_pesel",
        labels=("pesel", "numer pesel", "nr pesel",
                "peselu", "numeru pesel",), counts=(11,),
    ),
    Kind(
        "SE_PERSONNUMMER", "Personal identity number", "SE", 4, "19640823-3234", "Skatteverket", check="se_personnummer",
        labels=("personnummer", "pnr", "person nummer", "personnr", "samordningsnummer", "pers nr", "swedish id", "swedish id code",
                "personal identity number", "personal identity code", "personal number", "swedish personal number",
                "person number", "person nr",
                "personnumret", "personnummret",),
        strong=("00000000-0000",), soft=("000000-0000",), labelled=("000000+0000",), counts=(10, 12),
    ),
    Kind(
        "FI_HETU", "Personal identity code", "FI", 3, "131052-308T", "DVV", check="fi_hetu",
        labels=("hetu", "henkilotunnus", "henkilotunnukseni", "personal identity code", "sotu", "finnish id", "finnish id code",
                "personbeteckning",
                "hlotunnus",
                "henkilotunnuksesi", "henkilotunnuksen", "henkilotunnuksensa", "henkilotunnusta", "hetuni", "hetusi",
                "sosiaaliturvatunnus",),
        strong=("000000-000A", "000000A000A", "000000A0000"), soft=("000000+000A", "000000-0000"), labelled=("000000-0000", "000000+0000"),
    ),
    Kind(
        "NO_FNR", "Birth number", "NO", 4, "15108695088", "Skatteetaten", check="no_fnr",
        labels=("fodselsnummer", "fnr", "fodselsnr", "personnummer", "d nummer", "birth number", "norwegian id",
                "foedselsnummer", "foedselsnr", "fodsels og personnummer",
                "fodselsnummeret", "fodselsnummeret mitt", "fodselsnummeret ditt", "personnummeret",
                "f nr",),
        counts=(11,),
    ),
    Kind(
        "DK_CPR", "Civil registration number", "DK", 5, "211062-5629", "CPR-kontoret", check="dk_cpr",
        labels=("cpr", "cpr nummer", "cpr nr", "cpr number", "personnummer", "cprnr",
                "cpr nummeret", "personnummeret",),
        counts=(10,),
    ),
    Kind(
        "CH_AHV", "Old-age insurance number", "CH", 3, "756.9217.0769.85", "ZAS", check="ch_ahv",
        labels=("ahv", "ahv nummer", "avs", "numero avs", "ahv nr", "ahvn13", "sozialversicherungsnummer", "navs13", "numero d avs",
                "no avs", "avs ahv"),
        strong=("000.0000.0000.00", "000 0000 0000 00"), soft=("0000000000000",), counts=(13,),
    ),
    Kind(
        "IE_PPS", "Personal public service number", "IE", 4, "1234567FA", "DEASP", check="ie_pps",
        labels=("pps", "ppsn", "pps number", "personal public service", "pps no", "personal public service number"),
        labelled=("0000000A", "0000000AA", "0000000 A", "0000000 AA"),
    ),
    Kind(
        "RO_CNP", "Personal numerical code", "RO", 4, "1800101221144", "Legea 105/1996", check="ro_cnp",
        labels=("cnp", "cod numeric personal", "codul numeric personal"), counts=(13,),
    ),
)  # fmt: skip
