import { createClients } from "@pinion/client";
import { tokenKind } from "../ids.ts";
import type { Cli } from "./cli.ts";
import { findToken, type GlobalOptions, serverUrl, tokenFiles } from "./context.ts";
import type { Check } from "./doctor-check.ts";
import { explain, systemCode } from "./failures.ts";
import { formatLength } from "./lengths.ts";

const askTimeoutMs = 5_000;
/** HTTP dates have whole seconds, so less than this cannot be told from nothing. */
const skewMsMin = 2_000;

/** Server, its readiness, the clocks, and the token. */
export async function checkClient(cli: Cli, options: GlobalOptions): Promise<Check[]> {
  const url = serverUrl(options, cli.env);
  const health = await ask(`${url}/healthz`);
  if (health instanceof Error) return [unreachable(url, health), checkTokenForm(cli, options)];
  const checks: Check[] = [
    health.ok
      ? { name: "server", verdict: "good", found: `answers at ${url} in ${formatLength(health.tookMs)}` }
      : {
          name: "server",
          verdict: "bad",
          found: `${url}/healthz answers with HTTP ${health.status}`,
          advice: "something else than a Pinion listens there; say where it is with --url or PINION_URL",
        },
  ];
  if (!health.ok) return checks;
  checks.push(await checkReadiness(url), checkSkew(health), await checkToken(cli, options, url));
  return checks;
}

type Answer = {
  ok: boolean;
  status: number;
  text: string;
  tookMs: number;
  date: Date | undefined;
  receivedAtMs: number;
};

async function ask(url: string): Promise<Answer | Error> {
  const startedAt = performance.now();
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(askTimeoutMs) });
    const tookMs = performance.now() - startedAt;
    const date = new Date(answer.headers.get("date") ?? "");
    return {
      ok: answer.ok,
      status: answer.status,
      text: (await answer.text()).slice(0, 300),
      tookMs,
      date: Number.isNaN(date.getTime()) ? undefined : date,
      receivedAtMs: Date.now(),
    };
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

function unreachable(url: string, error: Error): Check {
  const why =
    systemCode(error) ??
    (error.name === "TimeoutError" ? `no answer in ${formatLength(askTimeoutMs)}` : error.message);
  return {
    name: "server",
    verdict: "bad",
    found: `no Pinion at ${url} (${why})`,
    advice: "start one with `pinion up` or `pinion serve`, or say where it is with --url or PINION_URL",
  };
}

async function checkReadiness(url: string): Promise<Check> {
  const ready = await ask(`${url}/readyz`);
  if (!(ready instanceof Error) && ready.ok) return { name: "ready", verdict: "good", found: "takes work" };
  return {
    name: "ready",
    verdict: "bad",
    found: ready instanceof Error ? ready.message : `not now: ${ready.text || `HTTP ${ready.status}`}`,
    advice:
      "it is starting, stopping, or without its database; its log says which, `doctor --database-url` looks there",
  };
}

function checkSkew(health: Answer): Check {
  if (!health.date) return { name: "clock", verdict: "absent", found: "the server does not tell its time" };
  // The date is cut to whole seconds: on average half a second late.
  const skewMs = health.date.getTime() + 500 - (health.receivedAtMs - health.tookMs / 2);
  if (Math.abs(skewMs) < skewMsMin)
    return { name: "clock", verdict: "good", found: "this machine and the server agree" };
  return {
    name: "clock",
    verdict: "doubtful",
    found: `this machine is ${formatLength(Math.abs(skewMs))} ${skewMs > 0 ? "behind" : "ahead of"} the server`,
    advice:
      "nothing breaks (the database's clock decides), but times look wrong here; let NTP set this clock",
  };
}

function checkTokenForm(cli: Cli, options: GlobalOptions): Check {
  const found = findToken(options, cli.env);
  if (!found) {
    return {
      name: "token",
      verdict: "bad",
      found: "none",
      advice: `give --token or PINION_TOKEN, or put it into ${tokenFiles(options, cli.env).join(" or ")}`,
    };
  }
  const kind = tokenKind(found.token);
  if (!kind) {
    return {
      name: "token",
      verdict: "bad",
      found: `what ${found.from} holds is no Pinion token, or was cut off`,
      advice: "a token looks like pin_pat_…_…; copy the whole of it",
    };
  }
  return { name: "token", verdict: "good", found: `${kind} token from ${found.from}, well-formed` };
}

async function checkToken(cli: Cli, options: GlobalOptions, url: string): Promise<Check> {
  const form = checkTokenForm(cli, options);
  if (form.verdict !== "good") return form;
  const { token, from } = findToken(options, cli.env)!;
  const kind = tokenKind(token);
  const clients = createClients({ url, token });
  try {
    if (kind === "dev") await clients.device.listMyWatchers({}, { timeoutMs: askTimeoutMs });
    else await clients.watchers.listWatchers({ pageSize: 1 }, { timeoutMs: askTimeoutMs });
    return { name: "token", verdict: "good", found: `${kind} token from ${from}, taken by the server` };
  } catch (error) {
    const { message, advice } = explain(error, url);
    return { name: "token", verdict: "bad", found: message, ...(advice ? { advice } : {}) };
  } finally {
    clients.close();
  }
}
