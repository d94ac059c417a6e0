import pytest

from tercet.errors import InvalidRequest, ModelUnsupported
from tercet.router.chat import ChatMessage, ChatTemplate, Function, ToolCall

USER = ChatMessage("user", "hi")


def render(source: str, *messages: ChatMessage, **options: str | int | float | bool | None) -> str:
    template = ChatTemplate(source, {"bos_token": "<s>"}, unix_time=lambda: 0)
    return template.render(messages or (USER,), options)


def test_messages_special_tokens_and_the_generation_prompt_reach_the_template() -> None:
    source = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    assert render(source, ChatMessage("system", "be kind"), USER) == (
        "<s>[system] be kind\n[user] hi\n[assistant]"
    )


def test_what_is_not_set_is_not_defined() -> None:
    source = (
        "{% for m in messages %}{{ m.name is defined }}{{ m.tool_calls is defined }}{% endfor %}"
    )
    assert render(source) == "FalseFalse"
    assert render(source, ChatMessage("user", "hi", name="Ann")) == "TrueFalse"


def test_options_reach_the_template() -> None:
    assert render("{{ enable_thinking }}", enable_thinking=False) == "False"


def test_tool_calls_are_objects_and_json_is_not_escaped_for_html() -> None:
    call = ToolCall("1", Function("f", {"x": "<é>"}))
    source = "{% for c in messages[0].tool_calls %}{{ c.function.arguments | tojson }}{% endfor %}"
    assert render(source, ChatMessage("assistant", None, tool_calls=(call,))) == '{"x": "<é>"}'


def test_lines_of_a_template_are_trimmed_as_templates_expect() -> None:
    assert render("  {% if true %}\n  x\n  {% endif %}\n") == "  x\n"


def test_loop_controls_and_generation_marks_are_understood() -> None:
    source = "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{% generation %}{{ i }}{% endgeneration %}{% endfor %}"
    assert render(source) == "01"


def test_a_template_may_ask_for_the_date() -> None:
    assert render("{{ strftime_now('%Y-%m-%d') }}") == "1970-01-01"


def test_developer_becomes_system_where_the_template_does_not_know_it() -> None:
    message = ChatMessage("developer", "x")
    assert render("{{ messages[0].role }}", message) == "system"
    source = "{% if messages[0].role == 'developer' %}known{% endif %}"
    assert render(source, message) == "known"


def test_an_objection_of_the_template_is_the_clients_fault() -> None:
    with pytest.raises(InvalidRequest, match="roles must alternate") as caught:
        render("{{ raise_exception('roles must alternate') }}")
    assert caught.value.field == "messages"


@pytest.mark.parametrize("source", ["{{ messages[0].content + 1 }}", "{{ messages[7].role }}"])
def test_a_template_that_trips_is_reported(source: str) -> None:
    with pytest.raises(InvalidRequest):
        render(source)


def test_a_template_cannot_reach_out_of_its_sandbox() -> None:
    with pytest.raises(InvalidRequest):
        render("{{ messages.__class__.__mro__[1].__subclasses__() }}")


def test_a_broken_template_is_refused_when_the_model_is_loaded() -> None:
    with pytest.raises(ModelUnsupported):
        ChatTemplate("{% if %}", {})
