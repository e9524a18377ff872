"""What people write and say, in many scripts, with all that breaks careless programs."""

from collections.abc import Callable
from typing import Final

SENTENCES: Final = (
    (
        "I was looking for the price and could not find it anywhere.",
        "The button at the bottom is too small for my thumb.",
        "It's fine, really; I'd use it again tomorrow.",
        "I expected the basket to open, but nothing happened.",
        "Honestly? The second design feels calmer.",
        "Hmm.",
        "My sister, who books all our trips, never reads the small print: show a summary first!",
    ),
    (
        "Ich habe den Preis überall gesucht und nirgends gefunden.",
        "Größe und Farbe lassen sich nicht gleichzeitig ändern.",
        "Das hätte ich so nicht erwartet – schön gelöst!",
    ),
    (
        "No encontré el botón para pagar, ¿dónde está?",
        "La segunda opción me parece más clara.",
        "Mañana lo volvería a usar sin pensarlo.",
    ),
    (
        "Je m'attendais à voir le prix tout de suite.",
        "C'est joli, mais où est passé le menu ?",
        "L'œil se perd : trop de couleurs à la fois.",
    ),
    (
        "لم أجد السعر في الصفحة الأولى.",
        "الزر صغير جدًا على الهاتف.",
        "أعجبني التصميم الثاني أكثر، فهو أوضح.",
    ),
    (
        "מחפשת את המחיר ולא מוצאת.",
        "הכפתור הזה לא עושה כלום.",
    ),
    (
        "मुझे कीमत कहीं नहीं मिली।",
        "दूसरा डिज़ाइन ज़्यादा साफ़ लगता है।",
        "मैं इसे फिर से इस्तेमाल करूँगी।",
    ),
    (
        "我找不到价格在哪里。",
        "第二个设计更清楚，也更安静。",
        "按钮太小了，手指点不准。",
    ),
    (
        "料金がどこに書いてあるのか分かりませんでした。",
        "ボタンを押しても何も起きません。",
    ),
    (
        "가격을 찾을 수가 없어요.",
        "두 번째 화면이 더 마음에 듭니다.",
    ),
    (
        "หาราคาไม่เจอเลยค่ะ",
        "ปุ่มเล็กเกินไปสำหรับนิ้วของฉัน",
    ),
    (
        "Цена нигде не указана.",
        "Мне больше нравится второй вариант.",
    ),
    (
        "Δεν βρήκα την τιμή πουθενά.",
        "Το κουμπί είναι πολύ μικρό.",
    ),
    (
        "Loved it 😍👍🏽",
        "👩‍👩‍👧‍👦 we all tried it 🇧🇷🏳️‍🌈",
        "🤔 not sure… 3️⃣ out of 5️⃣?",
    ),
)
"""Sentences by language; one answer stays within a language."""

ODDITIES: Final = (
    '=cmd|"/c calc"!A1',
    '=HYPERLINK("http://example.com","click")',
    "+1-555-0100",
    "-5",
    "@SUM(A1:A9)",
    "She said \"no\", then 'yes', then `maybe`.",
    "first line\nsecond line\r\nthird, with a tab\there",
    "a,b;c|d\\e\\\\f",
    "'; DROP TABLE sessions; --",
    "<script>alert(1)</script> & <b>bold</b>",
    "NULL",
    "null",
    "NaN",
    "0012",
    "1e5",
    "2024-02-30",
    "   spaces before and after   ",
    "",
    " ",
    "\u202eright to left, by force\u202c",
    "zero\u200bwidth\u200djoined\ufeff",
    "e\u0301 is not \u00e9 to a computer",
    "Z͑ͫ̓ͪ̂ͫ̽a̴̙̩l͖̤g̲͉o",
    "\u2028a line separator\u2029and a paragraph's",
    "𝒯𝓱𝓮 𝕓𝕚𝕘 planes 🀄 𠜎",
    "\x1b[31mred\x1b[0m \x07bell",
    "👨🏿‍🦽‍➡️",
    '{"json": [1, 2, null]}',
    "${HOME} {{ x }} %s %00 ../../etc/passwd",
)
"""Texts that spreadsheets, shells, terminals and databases trip over."""

TITLES: Final = (
    "Checkout, second round",
    "Navigation – Startseite",
    "¿Qué tal la nueva app?",
    "تجربة الدفع الجديدة",
    "חנות: מסע הלקוח",
    "नया होमपेज: पहली राय",
    "首页改版测试",
    "予約フローの調査",
    "결제 화면 비교 A/B",
    "ทดสอบแอปใหม่",
    "Опрос о доставке",
    "🚀 Launch check 🚀",
    '"Quoted" & <tagged> \\ back',
    "=1+1",
    "  padded  title ",
    "Line one\nline two",
    "\u202eevil title\u202c",
)

NAMES: Final = (
    "Maurice",
    "Ana María",
    "Søren Ø.",
    "فاطمة",
    "רות",
    "अदिति",
    "王小明",
    "さくら",
    "민준",
    "สมชาย",
    "Ольга",
    "Ann & Bob",
    "O'Neill",
)

Chance = Callable[[], float]
"""Draws a number from 0 to below 1."""


def answer_text(chance: Chance, most: int = 5) -> str:
    """Return what a person might write: one to `most` sentences, or an oddity."""
    if chance() < 0.06:
        return ODDITIES[int(chance() * len(ODDITIES))]
    language = SENTENCES[int(chance() * len(SENTENCES))]
    size = len(language)
    return " ".join([language[int(chance() * size)] for _ in range(1 + int(chance() * most))])
