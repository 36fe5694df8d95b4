"""What goes wrong, on request: rules that replace an answer, or change one that was honest.

A target says which requests a rule is for: "any", a listener, a kind, a digest (wherever it is asked for), or a
predicate on the request, such as `at(...)` returns. Changes to the body touch only answers that carry content.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from multidict import CIMultiDict

from tests.eventually import eventually

from .answers import BEFORE_HEADERS, Answer, Gate, redirect, registry_error, xml_error
from .content import Bytes, Flipped, Short
from .ledger import Recorded

Predicate = Callable[[Recorded], bool]
Target = str | Predicate
Make = Callable[[Recorded], Answer]
Change = Callable[[Answer], None]
Action = TypeVar("Action")

_LISTENERS = frozenset({"registry", "token", "cdn", "stranger"})
_KINDS = frozenset({"ping", "manifest", "blob", "tags", "referrers", "catalog", "other"})
OTHER_DIGEST = "sha256:" + "0" * 64


def at(
    kind: str | None = None, *, method: str | None = None, repository: str | None = None, reference: str | None = None
) -> Predicate:
    """Match requests by all that is given."""
    wanted = {"kind": kind, "method": method, "repository": repository, "reference": reference}
    given = {name: value for name, value in wanted.items() if value is not None}
    return lambda request: all(getattr(request, name) == value for name, value in given.items())


def predicate_of(target: Target) -> Predicate:
    """Return the predicate that a target stands for."""
    if callable(target):
        return target
    if target == "any":
        return lambda request: True
    if target in _LISTENERS:
        return lambda request: request.listener == target
    if target in _KINDS:
        return at(target)
    if target.startswith("sha256:"):
        return at(reference=target)
    raise ValueError(f"no such target: {target!r}; for a tag, use at(reference=...)")


@dataclass(eq=False)
class Rule(Generic[Action]):
    """One fault: what it does, to which requests, and how often."""

    target: Target
    action: Action
    times: int | None  # None: for ever
    content_only: bool = False
    used: int = 0
    matches: Predicate = field(init=False)

    def __post_init__(self) -> None:
        self.matches = predicate_of(self.target)

    def suits(self, request: Recorded) -> bool:
        return (self.times is None or self.used < self.times) and self.matches(request)


class Faults:
    """The faults in force, and the ways a test adds and lifts them."""

    def __init__(self) -> None:
        self._replacements: list[Rule[Make]] = []
        self._changes: list[Rule[Change]] = []
        self._gates: list[tuple[Target, Gate]] = []

    def answer(self, request: Recorded, honest: Callable[[], Answer]) -> Answer:
        """Return the honest answer or its replacement, with every change that suits."""
        answer = self._replacement(request) or honest()
        has_content = request.method == "GET" and answer.status in (200, 206)
        for rule in self._changes:
            if rule.suits(request) and (has_content or not rule.content_only):
                rule.used += 1
                rule.action(answer)
        return answer

    def _replacement(self, request: Recorded) -> Answer | None:
        for rule in self._replacements:
            if rule.suits(request):
                rule.used += 1
                return rule.action(request)
        return None

    def replace(self, target: Target, make: Make, *, times: int | None = None) -> Rule[Make]:
        """Answer with what `make` returns; the honest answer does not come to be, and costs nothing."""
        rule = Rule(target, make, times)
        self._replacements.append(rule)
        return rule

    def change(
        self, target: Target, change: Change, *, times: int | None = None, content_only: bool = False
    ) -> Rule[Change]:
        """Change answers before they are sent; with `content_only` those to a GET that carry what was asked for."""
        rule = Rule(target, change, times, content_only)
        self._changes.append(rule)
        return rule

    def heal(self, target: Target | None = None) -> None:
        """Lift all faults, or those of one target, and let go what they held."""
        self._replacements = [rule for rule in self._replacements if not _same(target, rule.target)]
        self._changes = [rule for rule in self._changes if not _same(target, rule.target)]
        self.release(target)
        self._gates = [(held, gate) for held, gate in self._gates if not _same(target, held)]

    # Waiting

    def hold(self, target: Target, after_bytes: int = 0, *, times: int | None = None) -> Gate:
        """Send the headers and `after_bytes` of the body, then wait for a release."""
        return self._gate(target, after_bytes, times, content_only=True)

    def hang(self, target: Target, *, times: int | None = None) -> Gate:
        """Accept the request and send nothing before a release."""
        return self._gate(target, BEFORE_HEADERS, times, content_only=False)

    async def wait_held(self, target: Target | None = None, count: int = 1) -> None:
        """Return when `count` answers wait at the gates of a target (or of all)."""
        await eventually(lambda: self.held(target) >= count, label=f"{count} answers held at {target or 'any gate'}")

    def held(self, target: Target | None = None) -> int:
        """Return how many answers wait at the gates of a target (or of all)."""
        return sum(gate.waiting for held, gate in self._gates if _same(target, held))

    def release(self, target: Target | None = None) -> None:
        """Let go what waits at the gates of a target (or of all), and whatever comes there later."""
        for held, gate in self._gates:
            if _same(target, held):
                gate.release()

    def _gate(self, target: Target, position: int, times: int | None, *, content_only: bool) -> Gate:
        gate = Gate()
        self._gates.append((target, gate))
        self.change(
            target, lambda answer: answer.holds.append((position, gate)), times=times, content_only=content_only
        )
        return gate

    # Bodies that go wrong

    def cut(self, target: Target, after_bytes: int, *, times: int | None = 1) -> Rule[Change]:
        """Send `after_bytes` of the body, then reset the connection."""
        return self._change_body(target, lambda answer: setattr(answer, "cut_after", after_bytes), times)

    def truncate(
        self, target: Target, at: int, *, honest_length: bool = False, times: int | None = None
    ) -> Rule[Change]:
        """End the body cleanly after `at` bytes, though Content-Length says more, unless `honest_length`."""

        def change(answer: Answer) -> None:
            if honest_length:
                answer.content = Short(answer.content, answer.extent()[0] + at)
            else:
                answer.end_after = at

        return self._change_body(target, change, times)

    def corrupt(self, target: Target, at_byte: int = 0, *, times: int | None = None) -> Rule[Change]:
        """Change one byte of the content, at a position counted from the content's start."""

        def change(answer: Answer) -> None:
            answer.content = Flipped(answer.content, at_byte)

        return self._change_body(target, change, times)

    def garbage(self, target: Target, body: bytes | None = None, *, times: int | None = None) -> Rule[Change]:
        """Send bytes that are no HTTP; with `body`, a well-formed answer with the right headers and this body."""

        def change(answer: Answer) -> None:
            if body is None:
                answer.raw = b"\x16\x03\x01\x00 this is not HTTP\r\n\r\n"
            else:
                answer.content, answer.window = Bytes(body), None

        return self.change(target, change, times=times, content_only=body is not None)

    def no_range(self, target: Target, *, times: int | None = None) -> Rule[Change]:
        """Ignore Range: answer 200 with everything."""

        def change(answer: Answer) -> None:
            answer.status, answer.window = 200, None
            answer.headers.pop("accept-ranges", None)

        return self._change_body(target, change, times)

    def no_content_length(self, target: Target, *, times: int | None = None) -> Rule[Change]:
        """Send the body chunked; a truncation then looks like the end."""
        return self._change_body(target, lambda answer: setattr(answer, "chunked", True), times)

    def gzip_encode(self, target: Target, *, times: int | None = None) -> Rule[Change]:
        """Claim `Content-Encoding: gzip` for a body that is as it always was."""
        return self._change_body(target, lambda answer: answer.headers.update({"content-encoding": "gzip"}), times)

    def _change_body(self, target: Target, change: Change, times: int | None) -> Rule[Change]:
        return self.change(target, change, times=times, content_only=True)

    # Answers that go wrong

    def fail(
        self,
        target: Target,
        status: int = 500,
        *,
        times: int | None = None,
        retry_after: int | str | None = None,
        body: bytes | None = None,
    ) -> Rule[Make]:
        """Answer with an error, by default with a body as the registry or the CDN words it."""

        def make(request: Recorded) -> Answer:
            word = xml_error if request.listener == "cdn" else registry_error
            answer = word(status, "TOOMANYREQUESTS" if status == 429 else "UNKNOWN", "unknown error")
            if body is not None:
                answer.content = Bytes(body)
                answer.headers["content-type"] = "text/plain"
            if retry_after is not None:
                answer.headers["retry-after"] = str(retry_after)
            return answer

        return self.replace(target, make, times=times)

    def abuse_limit(self, retry_after: int = 60) -> Rule[Make]:
        """Answer every URL of the hub itself as its load balancer does under abuse; the CDN is somebody else's."""
        headers = {"cache-control": "no-cache", "content-type": "text/plain", "retry-after": str(retry_after)}
        body = Bytes(b"Too Many Requests (HAP429).\n")
        return self.replace(
            lambda request: request.listener in ("registry", "token"),
            lambda _: Answer(429, CIMultiDict(headers), body),
        )

    def redirect_to(self, target: Target, url: str, *, status: int = 307, times: int | None = None) -> Rule[Make]:
        """Send clients elsewhere."""
        return self.replace(target, lambda _: redirect(url, status), times=times)

    def redirect_loop(self, target: Target, *, times: int | None = None) -> Rule[Make]:
        """Send clients to the URL they asked for."""
        return self.replace(target, lambda request: redirect(request.url), times=times)

    def refuse_head_blobs(self, status: int = 405) -> Rule[Make]:
        """Answer HEAD on blobs with an error, as some registries do."""
        return self.fail(at("blob", method="HEAD"), status)

    def wrong_digest_header(self, target: Target, digest: str = OTHER_DIGEST) -> Rule[Change]:
        """Name another digest in Docker-Content-Digest."""

        def change(answer: Answer) -> None:
            if "docker-content-digest" in answer.headers:
                answer.headers["docker-content-digest"] = digest

        return self.change(target, change)

    def no_digest_header(self, target: Target) -> Rule[Change]:
        """Leave Docker-Content-Digest out."""

        def change(answer: Answer) -> None:
            answer.headers.popall("docker-content-digest", None)

        return self.change(target, change)


def _same(target: Target | None, other: Target) -> bool:
    return target is None or target is other or target == other
