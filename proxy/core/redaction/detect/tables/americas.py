"""Identifiers of the United States, Canada, Mexico, Argentina and Chile."""

from __future__ import annotations

from proxy.core.redaction.detect.kinds import Kind

KINDS: tuple[Kind, ...] = (
    Kind(
        "US_SSN", "Social security number", "US", 5, "536-22-8726", "SSA, randomization rules", check="us_ssn_form", loose="us_ssn_labelled",
        labels=("ssn", "social security", "social security number", "social security no", "soc sec", "ss number", "social",
                "ssn last", "ssn number", "numero de seguro social", "seguro social", "social security num", "ssa number",
                "ss", "ss no", "soc sec no", "social sec",
                "soc security", "social sec no", "soc sec num",),
        strong=("000-00-0000",), soft=("000 00 0000", "000.00.0000"), counts=(9,),
    ),
    Kind(
        "US_ITIN", "Individual taxpayer number", "US", 5, "912-71-1234", "IRS publication 4757", check="us_itin",
        labels=("itin", "individual taxpayer identification number", "individual taxpayer", "taxpayer identification number",
                "tax id", "tin", "taxpayer id"),
        strong=("000-00-0000",), soft=("000 00 0000",), labelled=("000-000000", "00000-0000"), counts=(9,),
    ),
    Kind(
        "US_EIN", "Employer number", "US", 4, "12-3456789", "IRS, valid EIN prefixes", check="us_ein",
        labels=("ein", "employer identification number", "employer id", "federal tax id", "fein", "employer identification",
                "federal ein", "federal employer identification number", "tax id", "employer id number", "company ein"),
        labelled=("00-0000000",), counts=(9,),
    ),
    Kind(
        "US_PASSPORT", "Passport number", "US", 4, "C03005988", "Department of State",
        labels=("passport", "passport number", "passport no", "us passport", "passport num", "pasaporte", "passaporte",
                "passeport", "reisepass", "passaporto", "paspoort", "travel document", "numero de pasaporte",
                "numero do passaporte", "passnummer", "reisepassnummer", "passport id"),
        labelled=("000000000", "00000000", "A000000000", "A00000000", "A0000000", "AA0000000", "AA000000", "AAA000000", "00AA00000", "AA00000"),
        counts=(9,),
    ),
    Kind(
        "US_BANK_ROUTING", "Bank routing number (ABA)", "US", 4, "021000021", "ABA registrar", check="us_routing",
        labels=("routing", "routing number", "aba", "aba routing", "aba number", "routing no", "bank routing", "rtn",
                "routing transit number", "transit number", "aba routing number", "wire routing", "ach routing",
                "aba no", "routing num", "bank routing no", "bank routing number", "aba rtn",),
        soft=("0000-0000-0",), counts=(9,),
    ),
    Kind(
        "US_NPI", "National provider number", "US", 4, "1234567893", "CMS, NPI check digit", check="us_npi",
        labels=("npi", "national provider identifier", "provider identifier", "npi number", "provider npi", "provider id"),
        soft=("0000-000-000", "0000 000 000"), counts=(10,),
    ),
    Kind(
        "US_MBI", "Medicare beneficiary number", "US", 4, "1EG4-TE5-MK73", "CMS, MBI format", check="us_mbi",
        labels=("mbi", "medicare", "medicare number", "medicare id", "medicare beneficiary", "medicare beneficiary identifier",
                "medicare beneficiary number",
                "medicare no", "medicare beneficiary no",),
        strong=("0AA0-AA0-AA00", "0A00-AA0-AA00", "0AA0-A00-AA00", "0A00-A00-AA00"),
        labelled=("0AA0AA0AA00", "0A00AA0AA00", "0AA0A00AA00", "0A00A00AA00",
                  "0AA0 AA0 AA00", "0A00 AA0 AA00", "0AA0 A00 AA00", "0A00 A00 AA00"),
    ),
    Kind(
        "CA_SIN", "Social insurance number", "CA", 4, "130 692 544", "Service Canada", check="ca_sin",
        labels=("sin", "social insurance", "social insurance number", "nas", "numero d assurance sociale", "sin number",
                "assurance sociale", "canadian sin", "numero assurance sociale",
                "social insurance no", "social ins no",),
        soft=("000-000-000",), counts=(9,),
    ),
    Kind(
        "MX_CURP", "Population registry code", "MX", 3, "HEGG560427MVZRRL04", "RENAPO", check="mx_curp",
        labels=("curp", "clave unica de registro de poblacion"),
        strong=("AAAA000000AAAAAA00", "AAAA000000AAAAAAA0"),
    ),
    Kind(
        "MX_RFC", "Taxpayer number", "MX", 3, "GODE561231GR8", "SAT", check="mx_rfc",
        labels=("rfc", "registro federal de contribuyentes", "clave rfc"),
        labelled=tuple(f"{a}{dash}000000{dash}{b}" for dash in ("", "-") for a in ("AAA", "AAAA") for b in
                       ("AAA", "AA0", "A0A", "A00", "0AA", "0A0", "00A", "000")),
    ),
    Kind(
        "AR_CUIT", "Taxpayer number (CUIT, CUIL)", "AR", 3, "20-12345678-6", "AFIP", check="ar_cuit",
        labels=("cuit", "cuil", "cuit cuil", "numero de cuit", "clave unica de identificacion tributaria"),
        strong=("00-00000000-0",), soft=("00 00000000 0",), counts=(11,),
    ),
    Kind(
        "CL_RUT", "National and tax number", "CL", 3, "12.345.678-5", "SII", check="cl_rut",
        labels=("rut", "run", "rol unico tributario", "rol unico nacional", "r u t", "rut cliente", "cedula"),
        strong=("00.000.000-0", "00.000.000-A", "0.000.000-0", "0.000.000-A"), soft=("00000000-0", "00000000-A"),
        labelled=("0000000-0", "0000000-A", "00000000A", "0000000A", "000000000"), counts=(8, 9),
    ),
)  # fmt: skip
