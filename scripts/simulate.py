"""How many engines and workers a load wants: times to first token, simulated from measured service times.

In: docs/benchmarks/server.json and ttft.json (or others of their kind), a load. Out: docs/benchmarks/<out>.md, .json:
the simulation beside what was measured, policies compared, a sizing table. Where a question goes is the server's own
module (lift_server/placement.py). What is simulated, and what is not, stands in simulate_parts.py.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench_common import TABLES, given, stated, table, where, write
from lift_server.placement import Load, lightest, order
from simulate_parts import Cluster, Demand, Machine, Policy, Service

Json = dict[str, Any]
STREAMS = (1, 8, 64)  # that server.json has
COMPARED_QUESTIONS, UPLOADS = 15_000, 2_000  # simulated for each policy, for each number of workers
QUESTIONS = {1: 6_000, 10: 12_000, 100: 24_000, 1000: 20_000}  # simulated to size so many engines
PERCENTS = (50, 95, 99)
STEPS = 6  # of halving, between nothing and what decoding alone allows


def main() -> int:
    arguments = _parser().parse_args()
    server, ttft = (json.loads(path.read_text("utf-8")) for path in (arguments.server, arguments.ttft))
    service = measured(server, ttft)
    values: Json = {
        "measured": where("-"),
        "inputs": {"server": server["where"], "ttft": ttft["where"]},
        "service": vars(service),
        "checks": list(checks(service, server, ttft)),
        "policies": list(policies(service, arguments)),
        "sizes": [size(service, arguments, engines) for engines in arguments.engines],
        "workers": list(workers(service, arguments)),
    }
    write(arguments.out, values, list(report(values, arguments)))
    return 0


def measured(server: Json, ttft: Json) -> Service:
    """Prefill by the first tokens of one and of eight streams, steps by those of one and of 64, half of which wait."""
    asked = {one["plan"]["streams"]: one["served"] for one in server["compared"] if _is_document(one)}
    first_s = {n: asked[n]["ttft_s"]["p50"] for n in STREAMS}
    prefill_s = (first_s[8] - first_s[1]) / 7
    at_once = Machine().at_once
    step_s = 1 / asked[1]["tokens_per_s"]["median"]
    full_step_s = at_once / asked[64]["tokens_per_s"]["median"]
    runs = sorted((run["tokens"], run["phases"]["publish"]["end_s"]) for run in ttft["runs"])
    loads = sorted(_seconds(run["phases"]["load"]) for run in ttft["runs"])
    return Service(
        prefill_s=prefill_s,
        around_s=first_s[1] - prefill_s,
        load_s=loads[len(loads) // 2],
        step_s=step_s,
        more_s=(full_step_s - step_s) / (at_once - 1),
        training=tuple(runs),
    )


def checks(service: Service, server: Json, ttft: Json) -> Iterator[Json]:
    """What the service times were not made of."""
    asked = {one["plan"]["streams"]: one for one in server["compared"] if _is_document(one)}
    for streams in (8, 64):
        plan, served = asked[streams]["plan"], asked[streams]["served"]
        cluster = Cluster(service, Machine(), urls=["engine"])
        cluster.ask("document", 1, is_counted=False)  # its adapter is held
        for _ in range(streams):
            cluster.at(1.0, cluster.ask, "document", plan["tokens"])
        cluster.run()
        first_s, name = sorted(cluster.warm_s), f"{streams} questions at once"
        if streams == 8:  # its first tokens are in prefill_s
            tokens_per_s = streams * plan["tokens"] / (cluster.now_s - 1)
            yield _check(f"{name}: tokens/s", tokens_per_s, served["tokens_per_s"]["median"])
            continue
        yield _check(f"{name}: first token of the first half, s", first_s[0], served["ttft_s"]["p50"])
        yield _check(f"{name}: of the second half, s", first_s[-1], served["ttft_s"]["p100"])
    together = ttft["together"]
    cluster = Cluster(service, Machine(), urls=["engine"])
    for number, tokens in enumerate(together["tokens"]):
        cluster.upload_and_ask(f"document {number}", tokens, answer_tokens=1)
    cluster.run()
    for name, at in (("first", 0), ("last", -1)):
        found, known = sorted(cluster.cold_s)[at], sorted(together["together_ttft_s"])[at]
        yield _check(f"{len(together['tokens'])} documents uploaded at once: {name} cold answer, s", found, known)


def policies(service: Service, arguments: argparse.Namespace) -> Iterator[Json]:
    """The same questions, at 16 engines and 60 % of what they decode; a document is hot in the middle fifth."""
    engines, machine = 16, Machine(room=arguments.room)
    rate = 0.6 * engines * service.questions_per_s(machine.at_once, arguments.tokens)
    demand = Demand(rate, 1000 * engines, COMPARED_QUESTIONS / rate, arguments.zipf, arguments.tokens, flash=0.2)
    for name, policy, changed in (
        ("random", _random, machine),
        ("least loaded", _lightest, machine),
        ("the server's", _order, machine),
        ("the server's, half the room", _order, replace(machine, room=machine.room // 2)),
        ("the server's, twice the room", _order, replace(machine, room=2 * machine.room)),
        ("the server's, 16 slots", _order, replace(machine, slots=16)),
        ("the server's, 8 slots", _order, replace(machine, slots=8)),
        ("the server's, 2 slots", _order, replace(machine, slots=2)),
    ):
        yield {"policy": name, **_simulated(service, changed, engines, demand, policy, arguments.seed)}


def size(service: Service, arguments: argparse.Namespace, engines: int) -> Json:
    """The most questions a second for each engine at which `slo` holds for 95 %; a day's wave of a half on top."""
    machine = Machine(room=arguments.room)
    most = service.questions_per_s(machine.at_once, arguments.tokens)
    held, found = 0.0, {}
    step = 0.5
    for _ in range(STEPS):
        rate = (held + step) * most * engines
        span_s = QUESTIONS[engines] / rate
        demand = Demand(rate, 1000 * engines, span_s, arguments.zipf, arguments.tokens, swing=0.5)
        told = _simulated(service, machine, engines, demand, _order, arguments.seed)
        if told["p95"] <= arguments.slo:
            held, found = held + step, told | {"questions_per_s": rate}
        step /= 2
    return {"engines": engines, "of_capacity": held, **found}


def workers(service: Service, arguments: argparse.Namespace) -> Iterator[Json]:
    """Cold first answers by how busy the workers are, documents of `length` tokens."""
    job_s = service.train_s(arguments.length)
    for count in (1, 4, 16):
        for busy in (0.5, 0.8, 0.9):
            rate = busy * count / job_s
            cluster = Cluster(service, Machine(), urls=["engine"], workers=count)
            draw, at_s = random.Random(arguments.seed), 0.0
            for number in range(UPLOADS):
                at_s += draw.expovariate(rate)
                cluster.at(at_s, cluster.upload_and_ask, f"document {number}", arguments.length, 1)
            cluster.run()
            cold = sorted(cluster.cold_s)
            yield {"workers": count, "busy": busy, "documents_per_hour": 3600 * rate, **_percentiles(cold)}


def _simulated(
    service: Service, machine: Machine, engines: int, demand: Demand, policy: Policy, seed: int
) -> dict[str, float]:
    """The first fifth fills the engines and is not counted."""
    cluster = Cluster(service, machine, [f"http://engine-{number}:8100" for number in range(engines)], policy=policy)
    for at_s, document in demand.questions(random.Random(seed)):
        cluster.at(at_s, cluster.ask, document, demand.tokens, at_s > demand.seconds / 5)
    cluster.run()
    return {"held": cluster.held / cluster.counted, **_percentiles(sorted(cluster.warm_s))}


def _percentiles(ordered: Sequence[float]) -> dict[str, float]:
    return {f"p{percent}": ordered[len(ordered) * percent // 100] for percent in PERCENTS}


def _random(name: str, loads: Mapping[str, Load], draw: random.Random) -> str:
    return draw.choice(list(loads))


def _lightest(name: str, loads: Mapping[str, Load], draw: random.Random) -> str:
    return lightest(str(draw.random()), loads)[0]


def _order(name: str, loads: Mapping[str, Load], draw: random.Random) -> str:
    return order(name, loads)[0]


def _check(what: str, simulated: float, known: float) -> Json:
    return {"what": what, "simulated": simulated, "measured": known, "ratio": simulated / known}


def _is_document(compared: Json) -> bool:
    return bool(compared["asked"] == "document" and compared["plan"]["tokens"] > 4)


def _seconds(span: Json) -> float:
    return float(span["end_s"] - span["start_s"])


def report(values: Json, arguments: argparse.Namespace) -> Iterator[str]:
    service, inputs = values["service"], values["inputs"]
    yield from (
        f"# {arguments.out}: how many engines and workers a load wants",
        "",
        f"`{' '.join(('scripts/simulate.py', *given(arguments, _parser())))}`; " + stated(values["measured"]),
        "",
        "**Simulated**, from times measured on two processor cores with a small model; nothing here is of a GPU. For a",
        "machine of your own run `bench_server.py` and `bench_ttft.py` there, and give their JSON (--server, --ttft).",
        f"Service times are those of `server.json` at {inputs['server']['commit']} and `ttft.json` at "
        f"{inputs['ttft']['commit']}: {1000 * service['prefill_s']:.1f} ms",
        f"of the engine for a question's prompt, {1000 * service['load_s']:.0f} ms to load an adapter, "
        f"{1000 * service['step_s']:.1f} ms a step and {1000 * service['more_s']:.2f} ms more for",
        "each further question in it.",
        "",
        "## Beside what was measured",
        "",
        "Figures that the service times were not made of, from the same files.",
        "",
    )
    yield from table(
        ("what", "simulated", "measured", "ratio"),
        [
            (one["what"], f"{one['simulated']:.3g}", f"{one['measured']:.3g}", f"{one['ratio']:.2f}")
            for one in values["checks"]
        ],
    )
    yield from ("", "## Where questions go", "")
    yield from (
        "16 engines at 60 % of what they decode, 16,000 documents by Zipf's law with exponent "
        f"{arguments.zipf}, answers of {arguments.tokens} tokens,",
        f"room for {arguments.room} adapters and 32 slots where nothing else is said; in the middle fifth of the time",
        "a fifth of all questions is about one document. First token in seconds.",
        "",
    )
    yield from table(
        ("policy", "adapter was held", "p50", "p95", "p99"),
        [(one["policy"], f"{100 * one['held']:.1f} %", *_seconds_of(one, ".3f")) for one in values["policies"]],
    )
    yield from ("", "## Engines", "")
    yield from (
        f"The most questions a second at which 95 % have their first token within {arguments.slo} s, with a thousand",
        "documents an engine, and a wave of a half above and below the mean.",
        "",
    )
    columns = (
        "engines", "questions a second", "of what they decode", "adapter was held", "p50", "p95", "p99",
        "engine hours a million questions",
    )  # fmt: skip
    yield from table(columns, [_size_row(one) for one in values["sizes"]])
    yield from ("", "## Workers", "")
    yield from (
        f"Documents of {arguments.length} tokens, recipe `sketch`, uploaded at random times and asked at once; cold",
        "first token in seconds.",
        "",
    )
    yield from table(
        ("workers", "busy", "documents an hour", "p50", "p95", "p99"),
        [
            (one["workers"], f"{100 * one['busy']:.0f} %", f"{one['documents_per_hour']:.0f}", *_seconds_of(one, ".0f"))
            for one in values["workers"]
        ],
    )


def _size_row(found: Json) -> tuple[Any, ...]:
    if "p50" not in found:
        return found["engines"], "none", *("-" for _ in range(6))
    return (
        found["engines"],
        f"{found['questions_per_s']:.3g}",
        f"{100 * found['of_capacity']:.0f} %",
        f"{100 * found['held']:.1f} %",
        *_seconds_of(found, ".3f"),
        f"{1e6 * found['engines'] / found['questions_per_s'] / 3600:,.0f}",
    )


def _seconds_of(found: Json, form: str) -> Iterator[str]:
    return (format(found[f"p{percent}"], form) for percent in PERCENTS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=Path, default=TABLES / "server.json", help="of bench_server.py")
    parser.add_argument("--ttft", type=Path, default=TABLES / "ttft.json", help="of bench_ttft.py, with --together")
    parser.add_argument("--engines", type=int, nargs="+", choices=list(QUESTIONS), default=list(QUESTIONS))
    parser.add_argument("--zipf", type=float, default=1.0, help="exponent of the documents' popularity")
    parser.add_argument("--room", type=int, default=128, help="adapters that an engine holds")
    parser.add_argument("--tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--length", type=int, default=4000, help="tokens of a document")
    parser.add_argument("--slo", type=float, default=0.5, help="seconds to the first token, for 95 %% of the questions")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", default="capacity", help="name of the table below docs/benchmarks")
    return parser


if __name__ == "__main__":
    sys.exit(main())
