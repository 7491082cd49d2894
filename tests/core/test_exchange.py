"""The table of an exchange's states, and the vocabulary of causes."""

from balancer.core.exchange import NO_ANSWER, REASON_PHRASES, STATUS, TEXT, TRANSITIONS, Cause, State, may_follow


def test_every_state_is_reached_and_only_done_is_an_end() -> None:
    assert set(TRANSITIONS) == set(State)
    reached, new = set(), {State.READING}
    while new:
        reached |= new
        new = {after for state in new for after in TRANSITIONS[state]} - reached
    assert reached == set(State)
    assert [state for state in State if not TRANSITIONS[state]] == [State.DONE]


def test_every_state_can_end_and_nothing_goes_back_once_an_answer_began() -> None:
    for state in set(State) - {State.DONE}:
        assert may_follow(state, State.DONE)
    for state in (State.STREAMING, State.ANSWERING, State.TUNNEL):
        assert TRANSITIONS[state] == {State.DONE}


def test_our_answers_have_a_text_and_a_reason_phrase() -> None:
    assert set(STATUS) == set(TEXT)
    assert set(STATUS.values()) <= set(REASON_PHRASES)
    assert not set(STATUS) & set(NO_ANSWER) - {Cause.CUT}
