"""The checked settings of `SignIns`, and the requests that they make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from .._models import CodeTemplate
from .._validation import checked_seconds, configuration_error
from ..limits._segments import DEFAULT_SCOPE

_MAX_SENDS: Final = 100
_MAX_CHECKS: Final = 100
_LIFETIMES: Final = (60, 900)
# A flow takes the outcome of a check for a minute after it has expired.
_MAX_TIMEOUT: Final = 45
_MAX_COOLDOWN: Final = 900
_ANY_LENGTH: Final = "45678"

if TYPE_CHECKING:
    from .._models import CodeRequest

    Templates = dict[str, CodeTemplate]


class FlowText(Protocol):
    """What a request needs to know of its flow."""

    scope: str
    language: str


@attrs.frozen
class Settings:
    """The settings of `SignIns`; see there."""

    purpose: str
    messaging: dict[str, CodeTemplate]
    voice: dict[str, CodeTemplate] | None
    max_sends: int
    max_checks: int
    cooldown: list[int]
    lifetime: int
    timeout: float

    @classmethod
    def checked(  # noqa: PLR0913 - the arguments of `SignIns`
        cls,
        template: object,
        purpose: object,
        voice_template: object,
        max_sends: object,
        max_checks: object,
        cooldown: object,
        lifetime: object,
        timeout: object,
    ) -> Settings:
        """Return the settings.

        Raises:
            ConfigurationError: a value is wrong.
        """
        messaging = _templates("template", template)
        voice = None if voice_template is None else _templates("voice_template", voice_template)
        if voice is not None and any(each.callback_url is not None for each in voice.values()):
            raise configuration_error("voice_template", "must have no callback_url, which is documented for texts only")
        scopes = {each.scope or DEFAULT_SCOPE for each in messaging.values()}
        if purpose is None:
            if len(scopes) > 1:
                raise configuration_error("purpose", "must be given, because the templates have several scopes")
            (purpose,) = scopes
        if not isinstance(purpose, str) or not 0 < len(purpose) <= 64:
            raise configuration_error("purpose", "must be text of 1 to 64 characters")
        seconds = checked_seconds("lifetime", lifetime, minimum=_LIFETIMES[0])
        if seconds > _LIFETIMES[1]:
            raise configuration_error("lifetime", "must be at most 900 seconds: the service verifies no older code")
        limit = checked_seconds("timeout", timeout, minimum=0.1)
        if limit > _MAX_TIMEOUT:
            raise configuration_error("timeout", f"must be at most {_MAX_TIMEOUT} seconds")
        return cls(
            purpose,
            messaging,
            voice,
            _count("max_sends", max_sends, _MAX_SENDS),
            _count("max_checks", max_checks, _MAX_CHECKS),
            _cooldown(cooldown),
            round(seconds * 1000),
            limit,
        )

    @property
    def limits(self) -> dict[str, Any]:
        """The limits of a flow, as arguments of a step."""
        return {
            "max_sends": self.max_sends,
            "max_checks": self.max_checks,
            "lifetime": self.lifetime,
            # A process that died while its text was in flight leaves it in flight for so long.
            "in_flight_ms": round((self.timeout + 5) * 1000),
        }

    def language_of(self, language: str | None) -> str:
        """Return the language of a template for a wanted one, such as ``"de"`` for ``"de-CH"``; else the default."""
        wanted = language or ""
        for each in (wanted, wanted.replace("_", "-").partition("-")[0]):
            if each in self.messaging:
                return each
        return next(iter(self.messaging))

    def scope_of(self, language: str) -> str:
        """Return the scope of a template."""
        return self.messaging[language].scope or DEFAULT_SCOPE

    def code_lengths(self, language: str) -> str:
        """Return the lengths that the codes of a flow may have, as a text of digits."""
        templates = [self.messaging[language]]
        if self.voice is not None:
            templates.append(_in_language(self.voice, language))
        if any(each.digits is None for each in templates):  # not documented: the service's own length
            return _ANY_LENGTH
        return "".join(sorted({str(each.digits) for each in templates}))

    def request(self, number: str, flow: FlowText, channel: str) -> CodeRequest:
        """Return the request for one text of a flow."""
        templates = self.messaging if channel == "messaging" or self.voice is None else self.voice
        template = _in_language(templates, flow.language)
        return attrs.evolve(template, scope=flow.scope).to(number)


def _in_language(templates: dict[str, CodeTemplate], language: str) -> CodeTemplate:
    return templates.get(language) or next(iter(templates.values()))


def _templates(name: str, value: object) -> dict[str, CodeTemplate]:
    """Return templates by language, with their own scope in the place of ``{SCOPE}``."""
    by_language: Any = value
    found: dict[Any, Any] = dict(by_language) if isinstance(value, Mapping) else {"": value}
    if not found or not all(
        isinstance(language, str) and isinstance(each, CodeTemplate) for language, each in found.items()
    ):
        raise configuration_error(name, "must be a CodeTemplate, or a dict of them by language")
    return {language: _with_scope(each) for language, each in found.items()}


def _with_scope(template: CodeTemplate) -> CodeTemplate:
    if template.message is None:
        return template
    scope = template.scope or DEFAULT_SCOPE
    return attrs.evolve(template, message=template.message.replace("{SCOPE}", scope))


def _count(name: str, value: object, maximum: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= maximum:
        raise configuration_error(name, f"must be a whole number from 1 to {maximum}")
    return value


def _cooldown(value: object) -> list[int]:
    several: Any = value
    values: list[Any] = list(several) if isinstance(value, (list, tuple)) else [value]
    seconds = [checked_seconds("cooldown", each, minimum=0) for each in values]
    if any(each > _MAX_COOLDOWN for each in seconds):
        raise configuration_error("cooldown", f"must be at most {_MAX_COOLDOWN} seconds each")
    return [round(each * 1000) for each in seconds]
