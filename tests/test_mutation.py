"""What no test noticed is read right, and is quiet only once it was judged."""

from tests.mutation.__main__ import Survivor, read_survivor, unjudged

SHOWN = """# etl.auth.token.xǁTokenǁseconds_left__mutmut_3: survived
--- etl/auth/token.py
+++ etl/auth/token.py
@@ -1,3 +1,3 @@
 def seconds_left(self, now: float) -> float:
     elapsed = now - self.granted_at
-    return self.life_seconds - elapsed
+    return self.life_seconds + elapsed
"""
READ = Survivor(
    "etl.auth.token.Token.seconds_left",
    "return self.life_seconds - elapsed",
    "return self.life_seconds + elapsed",
)


def test_a_survivor_is_told_by_its_function_and_the_line_that_was_changed():
    assert read_survivor(SHOWN) == READ
    of_a_function = read_survivor("# etl.paging.sweep.x__meets_at__mutmut_12: survived\n- a\n+ b\n")
    assert of_a_function == Survivor("etl.paging.sweep._meets_at", "a", "b")


def test_only_what_nobody_has_judged_is_told_and_judgements_that_are_out_of_date():
    judged = {"function": READ.function, "was": READ.was, "became": READ.became, "why": "…"}
    stale = {**judged, "became": "return None"}
    assert unjudged([READ], [judged]) == ([], [])
    assert unjudged([READ], [stale])[0] == [READ]
    assert [one.became for one in unjudged([], [stale])[1]] == ["return None"]


def test_other_letters_in_a_message_are_wording_and_another_decision_is_not():
    worded = Survivor("f", 'raise Refused("No token.")', 'raise Refused("XXNo token.XX")')
    decided = Survivor("f", 'if kind == "bearer":', 'if kind != "bearer":')
    assert worded.wording and not decided.wording
    assert unjudged([worded], []) == ([], [])
