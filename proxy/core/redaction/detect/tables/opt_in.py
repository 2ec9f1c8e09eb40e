"""Kinds looked for only when a rule names them: what follows a label, in free text, with no check to confirm it."""

from __future__ import annotations

from proxy.core.redaction.detect.kinds import Kind

KINDS: tuple[Kind, ...] = (
    Kind(
        "PERSON", "Name of a person after its label, or from the names service", "", 7, "name: Ana Souza",
        "labels only; one capitalised word after a first name's or surname's label, two or more after the others",
        labels=(
            "name", "full name", "customer name", "client name", "patient", "patient name", "cardholder", "cardholder name",
            "account holder", "beneficiary", "contact person", "employee name", "display name", "recipient",
            "nome", "nome completo", "nome do cliente", "cliente", "paciente", "titular", "beneficiario", "razao social",
            "nombre", "nombre completo", "nombre y apellidos", "nom", "nom complet", "nom et prenom", "titulaire",
            "vollstandiger name", "kunde", "kontoinhaber", "ansprechpartner", "nome e cognome", "intestatario",
            "first name", "last name", "surname", "given name", "family name", "middle name", "maiden name",
            "sobrenome", "primeiro nome", "nome da mae", "apellido", "apellidos", "primer nombre", "prenom", "nom de famille",
            "vorname", "nachname", "familienname", "cognome",
        ),
        found_by="label",
    ),
    Kind(
        "ADDRESS", "Street address after its label, or from the names service", "", 7, "address: Rua das Flores, 123", "labels only",
        labels=(
            "address", "street", "street address", "home address", "billing address", "shipping address", "delivery address",
            "mailing address", "residential address", "address line 1", "address line",
            "endereco", "endereco residencial", "endereco de entrega", "logradouro", "direccion", "domicilio",
            "direccion de envio", "adresse", "adresse postale", "anschrift", "wohnadresse", "lieferadresse", "indirizzo",
            "residenza",
        ),
        found_by="label",
    ),
    Kind(
        "CVV", "Card security code after its label", "", 4, "cvv: 123", "labels only",
        labels=(
            "cvv", "cvv2", "cvc", "cvc2", "cv2", "card verification value", "card verification code", "security code",
            "card security code", "codigo de seguranca", "codigo de seguridad", "cryptogramme visuel", "cryptogramme",
            "prufnummer", "kartenprufnummer", "codice di sicurezza",
        ),
        found_by="label",
    ),
)  # fmt: skip
SINGLE_WORD_LABELS = frozenset(
    "first name|last name|surname|given name|family name|middle name|maiden name|sobrenome|primeiro nome|apellido|apellidos"
    "|primer nombre|prenom|nom de famille|vorname|nachname|familienname|cognome".split("|")
)
"""After these one capitalised word is a name."""
