"""Words that announce numbers which are no personal values; they veto weak matches, never strong ones."""

from __future__ import annotations

NEGATIVE_WORDS: tuple[str, ...] = (
    "order", "order id", "order number", "order no", "pedido", "commande", "bestellung", "bestellnummer", "ordine",
    "invoice", "invoice no", "nota fiscal", "factura", "fatura", "facture", "rechnung", "rechnungsnummer", "fattura",
    "tracking", "tracking number", "rastreio", "codigo de rastreio", "shipment", "parcel", "protocolo", "lote", "lot",
    "sku", "ean", "gtin", "upc", "isbn", "issn", "doi", "build", "commit", "revision", "rev", "trace", "trace id",
    "span id", "request id", "ticket", "seed", "created", "updated", "timestamp", "ts", "time", "epoch", "event", "expires",
    "score", "amount", "total", "subtotal", "price", "valor", "quantity", "qty", "processo", "lei", "case", "job", "pid",
    "version", "serial", "serial number", "part number", "batch", "transaction", "transaction id", "txid",
    "receipt", "coupon", "po", "purchase order", "article", "item", "items", "product", "product id", "size", "bytes", "offset",
    "line", "page", "pages", "row", "count", "duration", "latency", "checksum", "hash", "sequence", "seq",
    "vorgang", "vorgangsnummer", "aktenzeichen", "reference no", "reference number", "ref no", "case no", "case id", "case ref", "docket", "dossier",
    "expediente", "sprawa", "zaak", "zaaknummer", "dossiernummer", "kenmerk", "saksnummer", "arendenummer", "ticket no", "ticket number",
    "part no", "part nr", "p n", "mpn", "model", "model no", "drawing", "barcode", "bar code", "container", "article no", "item no", "zip", "zip code",
    "postal code", "postcode", "cep", "plz", "postleitzahl", "code postal", "codigo postal", "utm id", "video id", "post id", "page id", "parcel no",
    "order nr", "bestelnummer", "ordernummer", "ordrenummer", "tilausnumero", "factuurnummer", "numero de commande", "numero de pedido", "numero pedido",
    "n de commande", "no de commande", "codigo de barras", "code barre", "strichcode", "artikelnummer", "numero d ordine", "spedizione", "siparis no",
    "siparis", "kargo takip", "kargo takip no", "zamowienie", "numer zamowienia", "paczka", "colis", "envio", "pacote", "sendungsnummer", "numero de serie",
    "seriennummer", "订单号", "订单", "快递单号", "运单号", "注文番号", "伝票番号", "주문번호", "송장번호", "заказ", "трек", "счет", "счёт", "артикул",
    "session", "download", "view", "visit", "visitor", "click", "subscriber", "impression",
    "index", "call id", "tool call id", "tool call", "tool calls", "max tokens", "tokens",
)  # fmt: skip
"""Source: the hard negatives of redaction libraries' issue trackers and of everyday logs."""
