"""Which language a label is in, told by its words: for the page of types alone, the detector does not ask.

Owns the words that give a language away. A label none of whose words is here is an abbreviation, written alike everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_WORDS: Final = {
    "English": "authorization bearer credential key master passcode passphrase password passwd private secret shared signing token account address addr african american answering bank beneficiary billing birth birthdate birthday born business call calling canadian card "
    "cardholder cell cellphone chinese client code company contact credit creditcard customer date day debit delivery deposit desk device dial "
    "display document emergency employee employer family federal file finnish first foreign full gateway given health her him home hong "
    "host identification identifier identity income individual insurance korean last line maiden mailing medicare messages middle mob mobile "
    "my name nameserver national norwegian number office passport patient payout peer permanent personal phone provider public reach "
    "receiving recipient refugee registration remote resident residential ring routing russian security server service shipping singapore "
    "social source south street subnet surname swedish tax taxpayer telephone text transit travel turkish unique value verification voter "
    "wallet wire work",
    "Portuguese": "acesso secreta senha aleatoria aniversario cadastro cartao carteira celular chama chave cliente completo contato contribuinte cpf da de documento "
    "eleitor eleitoral em endereco entrega fisica cedula fone geral habilitacao identidade identificacao inscricao juridica liga ligue logradouro "
    "mae motorista nacional nasc nasceu nasci nascida nascido nascimento nome numero paciente passaporte pessoa primeiro razao registro "
    "residencial saude seguranca sobrenome telefone telemovel titular titulo zap",
    "Spanish": "acceso clave contrasena contrase\xf1a secreta apellido apellidos billetera cartera cedula celular clave cliente codigo contribuyentes cuenta de del direccion documento domicilio envio "
    "extranjero fec fecha fijo identidad identificacion llama llamame llamar marcame monedero movil nac naci nacida nacido nacimiento nacio "
    "nacional nombre numero paciente pasaporte poblacion primer registro seguridad seguro tarjeta telefonico telefono titular tributaria tributario unica unico",
    "French": "cl\xe9 cle jeton mdp mot passe adresse appelez appelle assurance bancaire carte complet credit cryptogramme famille identification intracommunautaire joignable naissance national "
    "ne nee nom numero passeport portable portefeuille postale prenom registre secu securite sociale titulaire tva téléphone visuel",
    "German": "kennwort passwort schl\xfcssel schluessel anschrift ansprechpartner burger erreichbar familienname geb geboren geburtsdatum geburtstag geldborse handy handynummer "
    "identifikationsnummer kartennummer kartenprufnummer kontaktnummer kontoinhaber kreditkarte kreditkartennummer kunde lieferadresse mobilnummer "
    "mobiltelefon nachname prufnummer reisepass reisepassnummer ruf rufnummer sozialversicherungsnummer steuer steuerid "
    "steueridentifikationsnummer steuerliche steuernummer telefon telefonnummer umsatzsteuer vollstandiger vorname wohnadresse",
    "Italian": "chiave parola d'ordine carta cellulare chiamami codice cod cognome credito della di fiscale indirizzo intestatario nascita nata nato nome numero partita "
    "passaporto piva portafoglio recapito residenza sicurezza telefonico telefono",
    "Dutch": "sleutel wachtwoord bel burgerservicenummer contactnummer creditcardnummer geboortedatum geboren mobiel nationaal paspoort rijksregister "
    "rijksregisternr rijksregisternummer sofinummer telefoon telefoonnummer btw",
    "Polish": "haslo klucz data karta komorkowy komórka kredytowa numer portfel telefonu urodzenia urodzona urodzony ur",
    "Swedish": "l\xf6senord losenord fodd fodelsedatum kreditkort kortnummer mobilnr personnummer personnr samordningsnummer momsnummer telefonnr",
    "Norwegian, Danish": "adgangskode passord fodsels fodselsdag fodselsdato fodselsnr fodselsnummer fodt foedselsdato foedselsnr foedselsnummer foedt kontaktnummer "
    "kortnummer kredittkort mobilnr mobiltelefon personnummer telefonnr telefonnummer tlf",
    "Finnish": "salasana alv henkilotunnukseni henkilotunnus hlotunnus kortin luottokortti numero puhelin puhelinnumero syntymaaika syntynyt",
    "Turkish": "parola sifre cep cuzdan dogum kart karti kimlik kredi numaram numarasi tarihi",
    "Czech": "narozeni dic",
    "Hungarian": "szuletesi",
    "Romanian": "cod codul nasterii numeric",
    "Vietnamese": "dien ngay sdt sinh thoai",
    "Indonesian": "hp nomor telepon",
    "Chinese in Latin letters": "shenfenzheng",
    "Japanese in Latin letters": "bango kojin",
    "Korean in Latin letters": "jumin",
}  # fmt: skip
_SHARED: Final = {"de", "data", "numero", "credit", "telefon", "cod", "di", "da", "em", "del", "date", "line", "code"}
"""Words that tell nothing beside another one which does."""
_SCRIPTS: Final = (
    (0x0370, 0x03FF, "Greek"), (0x0400, 0x04FF, "Russian, Ukrainian"), (0x0590, 0x05FF, "Hebrew"), (0x0600, 0x06FF, "Arabic"),
    (0x0900, 0x097F, "Hindi"), (0x0E00, 0x0E7F, "Thai"), (0x3040, 0x30FF, "Japanese"), (0x4E00, 0x9FFF, "Chinese"), (0xAC00, 0xD7A3, "Korean"),
)  # fmt: skip
_BY_WORD: Final[dict[str, tuple[str, ...]]] = {}
for _language, _words in _WORDS.items():
    for _word in _words.split():
        _BY_WORD[_word] = (*_BY_WORD.get(_word, ()), _language)
_ORDER: Final = [*_WORDS, *(name for _, _, name in _SCRIPTS)]


_SPOKEN: Final = {
    "AR": "Spanish", "BE": "Dutch French German", "BR": "Portuguese", "CA": "French", "CH": "German French Italian", "CL": "Spanish",
    "DE": "German", "DK": "Norwegian,_Danish", "ES": "Spanish", "FI": "Finnish Swedish", "FR": "French", "IT": "Italian", "MX": "Spanish",
    "NL": "Dutch", "NO": "Norwegian,_Danish", "PL": "Polish", "PT": "Portuguese", "RO": "Romanian", "SE": "Swedish", "TR": "Turkish",
}  # fmt: skip
"""Country of a type -> languages of its people: which of several a shared word is taken for."""


def languages_of(labels: Iterable[str], country: str = "") -> str:
    """Return the languages some labels are in, by name, the more frequent tables first."""
    spoken = {name.replace("_", " ") for name in _SPOKEN.get(country, "").split()}
    found: set[str] = set()
    for label in labels:
        told = _of_one(label)
        found |= told & (spoken | {"English"}) if told & spoken else told
    return ", ".join(name for name in _ORDER if name in found)


def _of_one(label: str) -> set[str]:
    for char in label:
        for first, last, name in _SCRIPTS:
            if first <= ord(char) <= last:
                return {name}
    known = [set(_BY_WORD[word]) for word in label.lower().split() if word in _BY_WORD and word not in _SHARED]
    known = known or [set(_BY_WORD[word]) for word in label.lower().split() if word in _BY_WORD]
    shared = set.intersection(*known) if known else set()
    return shared or (known[0] if known else set())
