"""A test's plan: what every participant of it is asked, and in which groups."""

from dataclasses import dataclass
from random import Random
from typing import Final

from etl.sandbox.ids import uuid_of
from etl.sandbox.products import Product
from etl.sandbox.texts import ODDITIES, SENTENCES

PUBLISHED: Final = {
    "BLANK": "blank",
    "RATING_SCALE": "ratingScale",
    "MULTIPLE_CHOICE": "multipleChoice",
    "IMAGE": "image",
    "NPS": "nps",
    "URL": "url",
    "RANK_ORDER": "rankOrder",
    "WRITTEN": "written",
    "FIGMA": "figma",
    "MATRIX": "matrix",
}
"""The published types of tasks, and the key of each in an answer."""

UNPUBLISHED: Final = {
    "UNRECOGNIZED": "videoResponse",
    "VERBAL": "verbal",
    "CARD_SORT": "cardSort",
    "TREE_TEST": "treeTest",
    "SCREENER": "screener",
}
"""Types that no document names, and yet are met."""

_SINGLE: Final = "DEMOGRAPHIC_QUESTION_TYPE_SINGLE"
_MULTIPLE: Final = "DEMOGRAPHIC_QUESTION_TYPE_MULTIPLE"
_OPTIONS: Final = (
    ("Chocolate", "Strawberry", "Vanilla", "Mint Chocolate"),
    ("Very easy", "Easy", "Neither", "Difficult", "Very difficult"),
    ("نعم", "لا", "لا أعرف"),
    ("是", "否", "不确定", "其他（请说明）"),
    ("Website A", 'Website "B"', "Both, equally", "Neither; I'd leave"),
    ("हाँ", "नहीं"),
    ("1 – 5", "6, 7 or 8", "9 + more", "=0"),
)


@dataclass(frozen=True, slots=True)
class Question:
    """A demographic question and its choices."""

    code: str | None
    label: str | None
    type: str | None
    choices: tuple[str, ...]
    id: str | None = None


QUESTIONS: Final = (
    Question("GENDER", "What is your gender?", _SINGLE, ("Male", "Female", "Non-binary", "女")),
    Question("AGE_GROUP", "How old are you?", _SINGLE, ("18-24", "25-34", "35-54", "55+")),
    Question("COUNTRY", "Where do you live?", _SINGLE, ("United States", "日本", "مصر", "भारत")),
    Question(
        "INTERESTS",
        "What interests you?",
        _MULTIPLE,
        ("Travel", "Cooking, baking & wine", "音楽", "Sport ⚽", "ธุรกิจ", "None of these"),
    ),
    Question("INCOME", "Household income?", _SINGLE, ("$60,000 - $79,999", "< $20,000", "n/a")),
    Question(
        "LANGUAGES", "Languages spoken?", _MULTIPLE, ("English", "Español", "العربية", "中文")
    ),
    Question(
        "EMPLOYMENT", "Employment status", _SINGLE, ("Employed full-time", "Student", "Retired")
    ),
    Question("INDUSTRY", "Which industry?", _SINGLE, ("Financial Services", "Bäckerei", "Other")),
    Question("SOCIAL", "Social networks used", _MULTIPLE, ("LinkedIn", "VK", "微信", "LINE")),
    Question("WEB_EXPERTISE", "Web expertise", _SINGLE, ("Beginner", "Intermediate", "Advanced")),
    Question("CHILDREN", "Children at home?", _SINGLE, ("No children", "1", "2", "3 or more")),
    Question("DEVICE", "Devices you own", _MULTIPLE, ("Computer", "Tablet", "Smartphone")),
    Question("CUSTOM_1", 'Custom: "which team\nare you in?"', _SINGLE, ODDITIES),
    Question(None, None, "UNRECOGNIZED", ("?",)),
    Question("CUSTOM_2", None, None, ("yes", "no")),
    Question(None, "Ένα ερώτημα χωρίς κωδικό", _SINGLE, ("Ναι", "Όχι")),
)


@dataclass(frozen=True, slots=True)
class Task:
    """A task as every participant meets it."""

    uuid: str
    text: str
    type: str
    options: tuple[str, ...]
    option_ids: tuple[str, ...]
    several: bool


@dataclass(frozen=True, slots=True)
class Group:
    """A task group; `label` is what scores call it."""

    uuid: str
    type: str
    label: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a test asks. `wide`: its answers hold null for every type that a task is not."""

    test_id: str
    product: Product
    test_plan_id: str
    groups: tuple[Group, ...]
    tasks: tuple[Task, ...]
    questions: tuple[Question, ...]
    wide: bool

    @property
    def scored(self) -> list[Group]:
        """The groups that a QXscore is made of."""
        return [group for group in self.groups if group.type == "QX_SCORE"]


def plan_of(seed: int, test_id: str, product: Product) -> Plan:
    """Return the plan of a test."""
    random = Random(f"{seed}:plan:{test_id}")
    questions = [
        Question(
            question.code,
            question.label,
            question.type,
            question.choices,
            None if question.type is None else _uuid(random),
        )
        for question in sorted(
            random.sample(QUESTIONS, 6 + random.randrange(9)), key=QUESTIONS.index
        )
    ]
    return Plan(
        test_id=test_id,
        product=product,
        test_plan_id=_uuid(random),
        groups=tuple(_groups(random, product)),
        tasks=tuple(_tasks(random)),
        questions=tuple(questions),
        wide=random.random() < 0.5,
    )


def _uuid(random: Random) -> str:
    return uuid_of(random.getrandbits(128))


def _groups(random: Random, product: Product) -> list[Group]:
    scores = random.choice((1, 1, 2, 3)) if product is Product.NON_THINK_OUT_LOUD else 0
    types = ["QX_SCORE"] * scores
    types += random.choice(([], ["BALANCED_COMPARISON"], ["UNRECOGNIZED"], ["BALANCED_COMPARISON"]))
    return [
        Group(_uuid(random), type_, f"QXscore {number}" if number % 2 else f"結帳 – QX {number} 🛒")
        for number, type_ in enumerate(types, 1)
    ]


def _tasks(random: Random) -> list[Task]:
    """Return 4 to 16 tasks: in three tests of four every published type is among them."""
    types = random.sample(list(PUBLISHED), 10 if random.random() < 0.75 else 4)
    types += random.choices(["RATING_SCALE", "MULTIPLE_CHOICE", "WRITTEN"], k=random.randrange(5))
    types += random.sample(list(UNPUBLISHED), random.randrange(3))
    return [_task(random, type_) for type_ in types]


def _task(random: Random, type_: str) -> Task:
    options = random.choice(_OPTIONS)
    language = random.choice(SENTENCES)
    text = random.choice(ODDITIES) if random.random() < 0.05 else random.choice(language)
    return Task(
        uuid=_uuid(random),
        text=text,
        type=type_,
        options=options,
        option_ids=tuple(_uuid(random) for _ in options),
        several=random.random() < 0.4,
    )
