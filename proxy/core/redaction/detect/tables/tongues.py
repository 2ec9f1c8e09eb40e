"""Words that announce a value in languages beyond those of western Europe, added to the rows of their kinds."""

from __future__ import annotations

LABELS: dict[str, tuple[str, ...]] = {
    "PHONE": (
        # Chinese, Japanese, Korean
        "手机号", "手机号码", "电话号码", "移动电话", "座机", "固话", "固定电话", "热线", "致电", "拨打", "微信绑定", "微信同号", "微信号", "\U0001f4de", "\U0001f4f1", "\U0001f4f2", "\u260e", "\u260f", "\u2706", "\u2121", "電話號碼", "手機號碼", "聯絡電話",
        "連絡電話", "行動", "市話", "傳真", "传真", "携帯電話", "携帯番号", "固定電話", "お電話", "連絡先電話", "ファックス", "ファクス", "フリーダイヤル", "ケータイ", "スマホ番号",
        "전화번호", "휴대폰번호", "휴대폰 번호", "핸드폰번호", "유선전화", "유선", "팩스", "연락 바랍니다", "대표번호", "문의전화",
        # Turkish, Azerbaijani, Kazakh
        "cep telefonum", "cep numaram", "cep numarasi", "telefon numarasi", "cep no su", "cep numara", "telefonum", "ev telefonu",
        "is telefonu", "sabit telefon", "faks", "telefon nomresi", "mobil nomre", "tel numaram", "gsm no", "gsm numaram", "numaram", "numarali hat", "numarali telefon", "numarali cep",
        # Russian, Ukrainian, Bulgarian, Serbian
        "телефона", "телефону", "телефоны", "сотовый", "сотовая", "мобильного", "мобильному", "мобильник", "факс", "позвоните", "звоните",
        "звонить", "дзвоніть", "зателефонуйте", "мобільний", "мобільного", "стаціонарний", "вайбер", "вотсап", "ватсап", "whatsapp", "мобилен", "мобилни",
        "моб тел", "тел моб", "номер для связи", "контактный номер", "контактний номер", "ұялы",
        # Greek
        "τηλ", "κιν", "τηλεφωνο", "τηλεφώνου", "κινητο", "κινητού", "φαξ", "σταθερό",
        # Hebrew
        "פלאפון", "סלולרי", "סלולארי", "מספר הטלפון", "הטלפון", "פקס", "וואטסאפ", "ווטסאפ", "להתקשר", "התקשרו", "התקשר",
        # Arabic, Persian, Urdu
        "جوالي", "هاتفي", "محمول", "المحمول", "تليفون", "تلفون", "تلفن", "فاكس", "اتصل", "اتصلوا", "للاتصال", "واتساب", "واتس", "رقمي", "النقال",
        "موبایل", "همراه", "شماره تماس", "شماره تلفن", "نمابر", "فون نمبر", "رابطہ نمبر",
        # Hindi, Bengali, Tamil, Telugu, Marathi and their neighbours
        "टेलीफोन", "टेलीफ़ोन", "संपर्क", "व्हाट्सएप", "व्हाट्सऐप", "दूरध्वनी", "ফোন", "মোবাইল", "টেলিফোন", "தொலைபேசி", "கைபேசி", "மொபைல்", "ఫోన్", "మొబైల్",
        "ફોન", "મોબાઇલ", "ਫ਼ੋਨ", "ਮੋਬਾਈਲ", "ಮೊಬೈಲ್", "ദൂരവാണി", "ഫോൺ", "മൊബൈൽ", "දුරකථන",
        "contact", "contact phone", "contact tel", "mobile nambar", "mobail", "phone hai", "mera number", "mobile number hai",
        # Thai, Lao, Khmer, Burmese
        "เบอร์", "เบอร์โทร", "โทรศัพท์", "มือถือ", "โทรสาร", "แฟกซ์", "ໂທລະສັບ", "ເບີໂທ", "ទូរស័ព្ទ", "ဖုန်း",
        # Vietnamese, Indonesian, Malay, Filipino, Swahili, Afrikaans
        "di dong", "so di dong", "dien thoai di dong", "lien he", "hotline", "so dt", "goi so", "zalo", "may ban",
        "nomor handphone", "handphone", "telepon", "telp", "no telp", "no telepon", "nomor telp", "nomor wa", "no wa", "nomor ponsel", "ponsel",
        "hubungi", "nombor telefon", "no tel", "telefon bimbit", "numero ng telepono", "numero ng cellphone", "cellphone number", "tawagan",
        "simu", "nambari ya simu", "namba ya simu", "selfoon", "selfoonnommer", "telefoonnommer", "selnommer",
        # Czech, Slovak, Hungarian, Romanian, South Slavic, Baltic
        "telefonni cislo", "mobilni", "mobilny", "telefonne cislo", "mobilni telefon", "mobilny telefon", "telefonu", "cislo telefonu", "telefonszam", "telefonszama", "telefonszamom", "mobilszam",
        "mobilszama", "numar de telefon", "numarul de telefon", "nr tel", "nr telefon", "tel mobil", "telefon mobil", "broj telefona", "broj mobitela", "mobitel",
        "ტელეფონი", "ტელ", "მობილური", "հեռախոս", "հեռ", "բջջային", "telefonas", "tel nr", "telefons", "talr",
        "telefonska stevilka", "telefono numeris", "mob telefonas", "talrunis", "telefona numurs", "telefoninumber", "numer tel",
    ),
    "CREDIT_CARD": (
        "信用卡号", "信用卡号码", "银行卡号", "借记卡", "储蓄卡", "卡片号码", "信用卡號", "卡片號碼", "付款卡", "クレカ", "デビットカード", "カード", "체크카드", "신용카드번호", "카드",
        "kredi karti numarasi", "kart numaram", "banka karti", "kart numara", "kredi kartim", "kart nomresi",
        "карта", "карты", "карту", "карте", "картой", "картка", "картки", "карткою", "картку", "номер картки", "κάρτα", "κάρτας", "αριθμός κάρτας", "πιστωτική κάρτα",
        "כרטיס אשראי", "מספר כרטיס", "כרטיס", "بطاقة ائتمان", "البطاقة", "بطاقة", "بطاقتي", "کارت", "شماره کارت", "کریڈٹ کارڈ", "कार्ड", "डेबिट कार्ड", "কার্ড", "அட்டை",
        "บัตรเครดิต", "หมายเลขบัตร", "เลขบัตรเครดิต", "บัตรเดบิต", "so the", "the tin dung", "so the tin dung", "the ghi no", "kartu kredit", "nomor kartu",
        "nomor kartu kredit", "no kartu", "kartu debit", "kad kredit", "nombor kad", "cislo karty", "platebni karta", "platobna karta",
        "kartyaszam", "kartyaszama", "bankkartya", "bankkartya szama", "hitelkartya", "numar card", "numarul cardului", "card de credit", "cardul", "broj kartice", "kartica",
        "kadi ya mkopo", "ბარათი", "ბარათის ნომერი", "քարտ", "kredietkaart", "kaartnommer",
    ),
    "DATE_OF_BIRTH": (
        # Chinese, Japanese, Korean; what stands behind the value among them
        "出生年月", "出生年月日", "出生于", "出生於", "生于", "生於", "诞生", "誕生", "生まれ", "出生日", "태어난", "출생", "출생년월일", "출생일자", "생년월일자",
        # Turkish
        "dogum", "dogum tarihim", "dogum gunu", "dogumlu", "d tarihi", "dogum yili", "anadan olub", "dogulub",
        # Russian, Ukrainian, Bulgarian, Serbian, Kazakh
        "рождения", "рожден", "рождён", "рождена", "родился", "родилась", "родились", "род", "\u0433 \u0440", "\u0433.\u0440", "\u0434 \u0440", "\u0434.\u0440", "дата рожд", "день рождения", "народження", "народивс",
        "народилас", "народжен", "дата на раждане", "роден", "родена", "датум рођења", "рођен", "туған",
        # Greek, Hebrew
        "γέννησης", "γεννησης", "γεννήθηκε", "γεννήθηκα", "γεννηθείς", "γεννηθεί", "γενέθλια", "ημ γέννησης", "לידה", "נולד", "נולדה", "נולדתי", "יליד", "ילידת", "יום הולדת",
        # Arabic, Persian, Urdu
        "ميلاد", "مواليد", "المولود", "ولد في", "ولدت في", "ولدت بتاريخ", "ولد بتاريخ", "تولد", "متولد", "پیدائش",
        # Hindi and its neighbours
        "जन्म", "जन्मदिन", "जन्मतारीख", "जन्मदिनांक", "জন্ম", "பிறந்த", "పుట్టిన", "જન્મ", "ਜਨਮ", "ಜನ್ಮ", "ಹುಟ್ಟಿದ", "ജനന", "උපන්",
        "janm tithi", "janam tithi", "janmdin", "janam din",
        # Thai, Lao, Khmer, Burmese
        "วันเกิด", "วันเดือนปีเกิด", "เกิดวันที่", "เกิดเมื่อ", "เกิด", "ວັນເກີດ", "ថ្ងៃខែឆ្នាំកំណើត", "မွေး",
        # Vietnamese, Indonesian, Malay, Filipino, Swahili, Afrikaans
        "sinh ngay", "ngay thang nam sinh", "nam sinh", "ngaysinh", "lahir", "tanggal lahir", "tgl lahir", "tempat tanggal lahir", "kelahiran", "lahir pada", "tarikh lahir",
        "lahir tanggal", "petsa ng kapanganakan", "kapanganakan", "kaarawan", "ipinanganak", "tarehe ya kuzaliwa", "kuzaliwa", "amezaliwa", "alizaliwa",
        # Czech, Slovak, Hungarian, Romanian, South Slavic, Baltic
        "narozen", "narozena", "narozeni", "nar", "dat nar", "datum nar", "datum narodenia", "narodenia", "narodeny", "narodena", "narodil se", "narodila se",
        "szuletett", "szul", "szul ido", "szuletesi ido", "szuletesi ideje", "szuletesnap", "szuletesi ev", "nascut la", "nascuta la", "nascut pe", "nascuta pe", "nascut in data de",
        "nascut la data de", "nascuta la data de", "data nasterii mele", "nasterii", "datum rodenja", "rodenja", "roden", "rodena", "rojen", "rojena", "datum rojstva", "rojstva", "gimimo data",
        "dzimsanas datums", "dzimis", "sunniaeg", "sunnikuupaev", "sundinud", "დაბადების", "ծննդյան", "ծնված",
    ),
    "TR_TCKN": (
        "turkish id number", "turkish national id", "turkish identity number", "turkish identification number", "kimlik numaram", "tc kimlik numaram", "t c kimlik numaram",
        "tc numaram", "tc numarasi", "vatandaslik no", "vatandaslik numarasi", "nufus no", "tc", "national id", "national id number", "identity number", "id number",
    ),
    "RU_INN": ("инн физлица", "инн организации", "russian inn", "taxpayer number", "tin"),
    "ZA_ID": ("south african identity number", "national id", "national id number", "id nommer", "identiteitsnommer", "identification number"),
    "CN_RIC": (
        "身份证件号", "身份证件号码", "身份號碼", "身分證號碼", "身份證號碼", "公民身份证", "证件号码", "证件号", "居民身份证", "chinese national id", "chinese id number",
        "chinese id card", "china id", "chinese resident id", "national id", "national id number", "id number", "identity number", "resident id", "sfz", "shenfenzheng haoma",
    ),
    "KR_RRN": (
        "주민번", "주민등록", "주민", "외국인등록", "korean id", "korean resident registration number", "resident registration", "resident registration no", "jumin number",
        "national id", "national id number", "rrn number", "jumin deungnok beonho",
    ),
    "JP_MY_NUMBER": ("個人番号カード", "マイナ", "my number card", "japanese my number", "japan my number", "social security and tax number", "mynumber card", "my no"),
    "SG_NRIC": ("fin number", "fin no", "nric/fin", "singapore nric", "singapore identity card", "singapore ic", "身份证号码", "nric num", "uin"),
    "HK_ID": ("香港身份证", "身份證號碼", "身份證號", "身份証號碼", "hong kong identity card number", "hong kong identity card no", "hong kong id number", "hong kong id card", "hkic no", "hk identity card", "id card", "id card no", "id card number"),
    "IN_AADHAAR": (
        "आधार संख्या", "आधार कार्ड", "आधार नंबर", "আধার", "ஆதார்", "ఆధార్", "આધાર", "ਆਧਾਰ", "ಆಧಾರ್", "ആധാർ", "आधार क्रमांक", "aadhaar num", "aadhar num", "uid number", "uid no", "uidai number",
        "aadhaar id", "adhaar number", "adhar number", "adhaar card", "adhar card", "aadhaar card num",
    ),
    "IN_PAN": ("pan card num", "पैन कार्ड", "पैन नंबर", "পান কার্ড", "pan id", "pan num"),
    "IN_GSTIN": ("जीएसटी", "gst registration number", "gst registration no", "gst num", "gstin no", "gst identification number", "gstin uin"),
    "AU_TFN": ("australian tax file number", "tfn number", "tfn no"),
    "AU_ABN": ("abn no", "business number", "australian business no"),
    "IP_ADDRESS": ("ipアドレス", "ip地址", "ip адрес", "ip-адрес", "айпи", "ip 주소", "عنوان ip"),
    "RO_CNP": ("cod numeric personal", "cnp ul", "cnp ul meu", "codul numeric personal"),
}  # fmt: skip
"""Kind -> words. Sources: the forms of the countries' own authorities and banks, dictionaries, translations of CLDR's and HL7's terms."""

NEGATIVE_WORDS: tuple[str, ...] = (
    "订单编号", "订单号码", "訂單編號", "訂單號碼", "快递", "物流单号", "工单号", "工单", "发票号码", "发票号", "发票代码", "發票號碼", "合同编号", "合同号", "条码", "條碼", "商品编号", "批次号", "批号", "流水号", "构建编号",
    "版本号", "案号", "编号为", "交易号", "会议号", "序列号",
    "お問い合わせ番号", "問い合わせ番号", "問合せ番号", "追跡番号", "受付番号", "予約番号", "商品番号", "管理番号", "会員番号", "整理番号", "請求書番号", "処理id", "品番", "型番", "ロット",
    "운송장번호", "운송장", "송장", "접수번호", "예약번호", "상품번호", "빌드 번호", "오류코드", "송장 번호", "주문 번호", "사건번호", "일련번호",
    "siparis numarasi", "siparis numaram", "fatura no", "fatura numarasi", "takip no", "takip numarasi", "dosya no", "seri no", "barkod", "referans no", "rezervasyon no",
    "номер заказа", "заказа", "заказу", "трек-номер", "накладная", "накладной", "накладна", "ттн", "замовлення", "номер замовлення", "штрихкод", "штрих-код", "серийный номер", "дело №", "справа №",
    "счёт-фактура", "договор №", "номер договора", "сборка", "заявка", "заявки", "квитанция", "партия", "артикул", "пользователь", "поръчка",
    "παραγγελία", "παραγγελίας", "τιμολόγιο", "τιμολογίου", "αποστολής", "הזמנה", "חשבונית", "משלוח", "رقم الطلب", "الطلب", "طلب", "فاتورة", "الفاتورة", "الشحنة", "شحنة", "سفارش", "ऑर्डर", "आर्डर", "चालान", "इनवॉइस",
    "คำสั่งซื้อ", "ใบแจ้งหนี้", "พัสดุ", "เลขพัสดุ", "รหัสสินค้า", "ma don hang", "don hang", "ma van don", "hoa don", "so hoa don", "nomor pesanan", "no pesanan", "pesanan", "nomor resi", "no resi", "resi", "faktur", "nombor pesanan",
    "objednavka", "objednavky", "cislo objednavky", "faktura", "faktury", "cislo faktury", "rendeles", "rendelesszam", "szamlaszam sorszama", "szamla sorszama", "numar comanda", "comanda", "factura nr", "nr comanda", "colet", "narudzba", "racun br",
    "meeting id", "confirmation", "confirmation no", "confirmation number", "policy no", "policy number", "claim", "claim no", "claim number", "lot no", "batch no", "run", "chunk id", "rng", "default rng", "random state", "randint",
)  # fmt: skip
"""What announces a number that is no personal value, in the same languages."""

LIST_WORDS: frozenset[str] = frozenset((
    "\u3001", "\u548c", "\u4e0e", "\u8207", "\u53ca", "\u6216", "\u3068", "\u3084", "または", "\ubc0f", "\uc640", "\uacfc", "\ub610\ub294", "\u0438", "\u0438\u043b\u0438", "\u0442\u0430", "\u0456", "\u0430\u0431\u043e", "και", "\u03ae", "\u0648", "\u0623\u0648", "\u06cc\u0627", "\u05d5", "\u05d0\u05d5", "\u0914\u0930", "\u092f\u093e", "และ", "หรือ", "\u0219\u0069", "\u00e9\u0073", "\u0076\u00e0", "hoặc",
))  # fmt: skip
"""What stands between the values of a list in other scripts: a comma, "and", "or"."""
