"""Brazilian identifiers."""

from __future__ import annotations

from proxy.core.redaction.detect.kinds import Kind

KINDS: tuple[Kind, ...] = (
    Kind(
        "CPF", "Taxpayer number of a person", "BR", 5, "529.982.247-25",
        "Receita Federal, IN RFB 2172/2024", check="cpf",
        labels=("cpf", "c p f", "cadastro de pessoa fisica", "cpf mf", "taxpayer id brazil",
                "chave pix", "pix key",),
        strong=("000.000.000-00", "000.000.000/00", "000000000-00", "000000000/00", "000-000-000-00", "000 000 000-00"),
        soft=("00000000000", "000 000 000 00", "000.000.00000", "000.000.000.00", "000.000.000 00"),
        counts=(11,),
    ),
    Kind(
        "CNPJ", "Company number, numeric or alphanumeric", "BR", 5, "11.222.333/0001-81",
        "Receita Federal, IN RFB 2229/2024", check="cnpj",
        labels=("cnpj", "c n p j", "cadastro nacional da pessoa juridica", "cnpj mf",
                "chave pix", "pix key",),
        strong=("00.000.000/0000-00", "00000000/0000-00", "00.000.000-0000-00", "00 000 000/0000-00"),
        soft=("00000000000000", "00 000 000 0000 00", "00.000.000.0000.00", "00.000.000 0000 00", "00.000.000 0000-00"),
        counts=(14,),
    ),
    Kind(
        "BR_RG", "Identity card", "BR", 6, "12.345.678-9", "state issuers; Lei 7.116/1983", check="br_rg",
        labels=("rg", "r g", "identidade rg", "registro geral", "carteira de identidade", "numero do rg", "identidade",
                "documento de identidade", "cedula de identidade"),
        labelled=(
            "00.000.000-0", "00.000.000-A", "00000000-0", "00000000-A", "0.000.000-0", "0.000.000", "00.000.000",
            "AA-00.000.000", "AA-0.000.000", "AA00000000", "AA-00000000", "A-0.000.000", "A-00.000.000",
            "AA-00.000.000-0", "AA-00.000.000-A", "00000000A", "0000000-0", "0000000-A",
            "000.000.000-0", "AA0000000", "AA-0000000", "00.000.0000", "00000000 0",
        ),
        counts=(7, 8, 9, 10),
    ),
    Kind(
        "BR_CNH", "Driving licence", "BR", 4, "02650306461", "Denatran ordinance 47/1999", check="br_cnh",
        labels=("cnh", "carteira de motorista", "carteira nacional de habilitacao", "habilitacao", "registro cnh",
                "carteira de habilitacao", "numero da habilitacao"),
        counts=(11,),
    ),
    Kind(
        "BR_PIS", "Social integration number (PIS, PASEP, NIT, NIS)", "BR", 4, "120.56874.10-7", "Caixa", check="br_pis",
        labels=("pis", "pasep", "pis pasep", "nit", "nis", "pis nis", "numero do pis", "pis nit", "nit pis pasep"),
        counts=(11,),
    ),
    Kind(
        "BR_TITULO_ELEITOR", "Voter number", "BR", 4, "1023 8501 0671", "TSE resolution 21.538/2003", check="br_titulo",
        labels=("titulo de eleitor", "titulo eleitor", "titulo eleitoral", "inscricao eleitoral", "titulo", "voter id"),
        counts=(12,),
    ),
    Kind(
        "BR_CNS", "Health card", "BR", 4, "700 0000 0000 0005", "DATASUS", check="br_cns",
        labels=("cns", "cartao sus", "cartao nacional de saude", "sus", "numero do sus", "carteira do sus", "cartao do sus"),
        counts=(15,),
    ),
    Kind(
        "BR_PIX_KEY", "Random Pix key", "BR", 2, "123e4567-e89b-42d3-a456-426614174000", "Banco Central, DICT manual",
        labels=("chave pix", "pix", "chave pix aleatoria", "chave aleatoria", "pix key", "chave evp"), found_by="label",
    ),
)  # fmt: skip
