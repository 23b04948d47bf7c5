"""What classifying costs, and how well it does: prints, asserts nothing."""

import json
import random
import statistics
import time
from pathlib import Path

from fallback_plugin.core.classify import classify
from fallback_plugin.core.failure import Facts

DATA = Path(__file__).parent.parent / "data"
WALL = 1_795_247_821.0
KIB = 1024


def facts_of(record):
    return Facts(
        provider=record["provider"],
        status=record["http_status"],
        headers=record["headers"] or {},
        body=record["body"],
        name=record["host_error_name"],
        message=record["message"],
        observed_at_wall=WALL,
    )


def bodies():
    chance = random.Random(1)
    words = [
        "the",
        "quota",
        "limit",
        "rate",
        "model",
        "context",
        "token",
        "retry",
        "request",
        "timeout",
        "server",
        "usage",
        "balance",
        "key",
        "of",
        "a",
        "to",
    ]

    def prose(size):
        return " ".join(chance.choice(words) for _ in range(size // 5))[:size]

    def padded(size):
        return json.dumps({"error": {"message": "Rate limit reached", "code": "rate_limit"}, "pad": "x " * (size // 2)})

    small = {"error": {"message": "Rate limit reached for requests", "type": "requests", "code": "rate_limit_exceeded"}}
    yield "small object", small
    for name, size in (("16 KiB", 16 * KIB), ("1 MiB", 1024 * KIB)):
        yield f"{name} JSON", padded(size)
        yield f"{name} words of errors", prose(size)
        yield f"{name} plain words", ("lorem ipsum dolor sit amet " * (size // 27 + 1))[:size]
        yield f"{name} web page", "<html><title>502 Bad Gateway</title>" + "<p>x</p>" * (size // 8)
        yield f"{name} open braces", "{" * size


def median_microseconds(body, rounds=101):
    facts = Facts(status=429, body=body, observed_at_wall=WALL)
    spent = []
    for _ in range(rounds):
        start = time.perf_counter()
        classify(facts, now=0.0)
        spent.append(time.perf_counter() - start)

    return statistics.median(spent) * 1e6


def figures(name):
    caught = missed = alarms = alone = kinds = hints = known = 0
    records = [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]
    for record in records:
        failure = classify(facts_of(record), now=0.0)
        caught += record["should_fallback"] and failure.should_fallback
        missed += record["should_fallback"] and not failure.should_fallback
        alarms += not record["should_fallback"] and failure.should_fallback
        alone += not record["should_fallback"] and not failure.should_fallback
        kinds += failure.kind == record["kind"]
        if record["retry_after_s"] is not None:
            known += 1
            hints += failure.retry_at is not None and abs(failure.retry_at - record["retry_after_s"]) <= 2

    return (
        f"{name}: {len(records)} errors, recall {caught / (caught + missed):.3f},"
        f" false positives {alarms / (alarms + alone):.3f}, kind {kinds / len(records):.3f}, hints {hints} of {known}"
    )


def main():
    for name, body in bodies():
        print(f"{name:<24} {median_microseconds(body):8.0f} µs")

    for name in ("provider_errors.jsonl", "regression_errors.jsonl"):
        print(figures(name))


if __name__ == "__main__":
    main()
