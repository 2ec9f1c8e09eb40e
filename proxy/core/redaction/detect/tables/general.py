"""Kinds that belong to no country."""

from __future__ import annotations

from proxy.core.redaction.detect.kinds import Kind

KINDS: tuple[Kind, ...] = (
    Kind(
        "EMAIL", "E-mail address", "", 2, "ana@example.com", "RFC 5321 4.1.2, as people write it",
        found_by="email",
    ),
    Kind(
        "PHONE", "Telephone number", "", 6, "+55 11 98765-4321", "libphonenumber metadata; ITU-T E.164",
        found_by="phone",
        labels=(
            "phone", "phone number", "phone no", "telephone", "telephone number", "tel", "tel no", "mobile",
            "mobile number", "mobile no", "cell", "cell phone", "cellphone", "cell number", "fax", "fax number", "desk",
            "contact number", "whatsapp", "whats app", "sms", "calling", "dial", "office", "call us", "call us at", "call him", "call her", "call on", "call at", "ring me", "answering at", "messages to", "my number", "call me", "call me at", "call me on", "reach me at", "text me at",
            "me liga no", "me liga em", "liga no", "ligue para", "ligue no", "chama no", "me chama no", "zap", "wpp", "whats", "llamame al", "llama al",
            "marcame al", "llamar al", "appelle moi au", "appelez moi au", "joignable au", "erreichbar unter", "ruf mich an unter", "chiamami al",
            "bel me op", "telefone", "telefone celular", "celular", "fone", "numero de telefone", "contato",
            "telefono", "numero de telefono", "movil", "numero de movil", "telefono movil", "celular",
            "téléphone", "numero de telephone", "portable", "gsm",
            "telefon", "telefonnummer", "handy", "handynummer", "rufnummer", "mobilnummer", "mobil",
            "cellulare", "numero di telefono", "recapito telefonico",
            "telefoon", "telefoonnummer", "mobiel", "telemovel", "numer telefonu", "komórka",
            "puhelin", "puhelinnumero", "telefonnr", "tlf", "telepono", "cep telefonu", "cep no", "telefon numaram",
            "電話", "電話番号", "携帯", "手机", "电话", "联系电话", "전화", "휴대폰", "телефон", "тел", "τηλέφωνο",
        ),
    ),
    Kind(
        "CREDIT_CARD", "Payment card number", "", 5, "4111 1111 1111 1111", "ISO/IEC 7812; scheme range tables",
        check="card", loose="card_labelled",
        labels=(
            "card", "card number", "card no", "credit card", "credit card number", "debit card", "debit card number",
            "creditcard", "cc", "cc number", "cartao", "numero do cartao", "cartao de credito", "tarjeta",
            "tarjeta de credito", "numero de tarjeta", "carte", "carte bancaire", "carte de credit", "kreditkarte",
            "kreditkartennummer", "kartennummer", "carta di credito", "numero carta", "creditcardnummer", "karta",
            "visa", "mastercard", "amex", "american express", "pan", "maestro",
            "信用卡", "クレジットカード", "カード番号", "신용카드",
        ),
        strong=(
            "0000 0000 0000 0000", "0000-0000-0000-0000", "0000.0000.0000.0000",
            "0000 000000 00000", "0000-000000-00000", "0000.000000.00000",
            "0000 000000 0000", "0000-000000-0000", "0000.000000.0000",
            "0000 0000 0000 0000 000", "0000-0000-0000-0000-000",
        ),
        soft=(
            "0000000000000", "00000000000000", "000000000000000", "0000000000000000", "00000000000000000",
            "000000000000000000", "0000000000000000000",
        ),
        counts=(12, 13, 14, 15, 16, 17, 18, 19),
    ),
    Kind(
        "IMEI", "Mobile equipment number", "", 4, "490154203237518", "3GPP TS 23.003", check="luhn",
        labels=("imei", "imei number", "imei no", "device imei"), counts=(15,),
    ),
    Kind(
        "IBAN", "International bank account number", "", 2, "GB82 WEST 1234 5698 7654 32", "ISO 13616, SWIFT registry 98",
        check="iban", found_by="iban",
    ),
    Kind(
        "DATE_OF_BIRTH", "Date of birth", "", 3, "1990-05-03", "calendar; labels only",
        labels=(
            "dob", "d o b", "date of birth", "birth date", "birthdate", "birthday", "born", "born on", "birth",
            "data de nascimento", "nascimento", "nascido em", "nascida em", "nasc", "dt nasc", "data nasc", "data nascimento",
            "nasci em", "nasceu em", "dt nascimento", "aniversario",
            "fecha de nacimiento", "nacimiento", "nacido el", "nacida el", "naci el", "fec nac", "fecha nac", "f nacimiento",
            "date de naissance", "naissance", "ne le", "nee le", "ddn",
            "geburtsdatum", "geboren am", "geboren", "geb", "geburtstag", "geb datum", "geb am",
            "data di nascita", "nascita", "nato il", "nata il", "geboortedatum", "geboren op",
            "data urodzenia", "urodzony", "urodzona", "ur", "fodselsdato", "fodt", "fodelsedatum", "fodd", "syntymaaika", "syntynyt",
            "dogum tarihi", "fodselsdag", "datum narozeni", "szuletesi datum", "data nasterii",
            "\u751f\u5e74\u6708\u65e5", "\u51fa\u751f\u65e5\u671f", "\uc0dd\ub144\uc6d4\uc77c",
            "\u0434\u0430\u0442\u0430 \u0440\u043e\u0436\u0434\u0435\u043d\u0438\u044f", "\u51fa\u751f",
        ),
        found_by="label",
    ),
    Kind(
        "IP_ADDRESS", "IPv4 or IPv6 address, with its prefix length", "", 3, "203.0.113.7", "RFC 791, RFC 4291",
        labels=("ip", "ip address", "ip addr", "client ip", "server ip", "source ip", "src", "dst", "remote addr", "host", "address",
                "endereco ip", "direccion ip", "adresse ip", "ip adresse", "indirizzo ip", "dns", "gateway", "server", "subnet",
                "ipv4", "peer", "from", "nameserver", "addr"),
        found_by="ip",
    ),
    Kind("MAC_ADDRESS", "Hardware address", "", 2, "00:1A:2B:3C:4D:5E", "IEEE 802", found_by="mac"),
    Kind(
        "CRYPTO_WALLET", "Bitcoin, Ethereum and kindred addresses", "", 2, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
        "BIP 173, BIP 350, base58check",
        labels=("wallet", "wallet address", "bitcoin", "btc", "eth", "ethereum", "crypto", "carteira", "carteira de cripto",
                "bitcoin wallet", "btc address", "eth address", "ethereum address", "crypto wallet", "cartera", "portefeuille",
                "geldborse", "bitcoin address", "usdt", "metamask"),
        found_by="wallet",
    ),
    Kind("JWT", "JSON web token", "", 1, "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "RFC 7519", found_by="jwt"),
    Kind("PRIVATE_KEY", "Private key in PEM or PGP armour", "", 0, "-----BEGIN PRIVATE KEY-----", "RFC 7468", found_by="pem"),
    Kind(
        "URL_CREDENTIALS", "User and password in a URL", "", 1, "postgres://ana:s3cret@db/app", "RFC 3986 3.2.1",
        found_by="url",
    ),
    Kind("API_KEY", "Key or token of a provider, or one a label announces", "", 1, "ghp_", "issuers' documents; gitleaks rules (MIT)",
         found_by="secret"),
    Kind("PASSWORD", "Password after its label", "", 3, "password: Summer299!", "labels only", found_by="label"),
)  # fmt: skip
