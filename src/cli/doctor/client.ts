import type { IncomingMessage } from "node:http";
import { type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import { createClients, isPermissionDenied, type ProxySetting, proxyErrorOf, proxyFor } from "@pinion/client";
import { outgoingRequest } from "../../network/outgoing.ts";
import type { Readiness } from "../../server/http/probes.ts";
import { tokenKind } from "../../values/ids.ts";
import type { Cli } from "../cli.ts";
import { findToken, type GlobalOptions, proxyOption, serverUrl, tokenFiles } from "../context.ts";
import { explain, systemCode } from "../failures.ts";
import { dayMs, formatLength } from "../print/lengths.ts";
import type { Check } from "./check.ts";
import { certificateProblem, checkServedCertificate } from "./tls.ts";

const askTimeoutMs = 5_000;
/** Minimum reported clock difference in ms: HTTP dates have whole seconds. */
const skewMsMin = 2_000;

/** Checks the server, its readiness, the clocks, and the token. */
export async function checkClient(cli: Cli, options: GlobalOptions): Promise<Check[]> {
  const url = serverUrl(options, cli.env);
  const { proxy } = proxyOption(options);
  const health = await ask(`${url}/healthz`, proxy);
  if (health instanceof Error) return [unreachable(url, health), checkTokenForm(cli, options)];
  const checks: Check[] = [
    ...checkProxy(url, proxy),
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
  checks.push(
    ...(await checkReadiness(url, proxy)),
    checkSkew(health),
    ...(await checkServedCertificate(url, proxy)),
    await checkToken(cli, options, url),
    ...(await checkDevices(cli, options, url)),
  );
  return checks;
}

/** The proxy to the server and its setting; empty without a proxy. */
function checkProxy(url: string, setting: ProxySetting | undefined): Check[] {
  const proxy = proxyFor(url, setting);
  if (!proxy) return [];
  return [{ name: "proxy", verdict: "good", found: `${proxy.shown} leads to the server (${proxy.setting})` }];
}

/**
 * Devices with a copied machine or a wrong configuration; empty if there are none or the token
 * lacks the permission.
 */
async function checkDevices(cli: Cli, options: GlobalOptions, url: string): Promise<Check[]> {
  const found = findToken(options, cli.env);
  if (!found || tokenKind(found.token) === "dev") return [];
  const clients = createClients({ url, token: found.token, ...proxyOption(options) });
  try {
    const { devices } = await clients.fleet.listDevices({ pageSize: 500 }, { timeoutMs: askTimeoutMs });
    return devices.flatMap((device): Check[] => {
      const name = `device ${device.label}`;
      const checks: Check[] = [];
      if (device.duplicate) {
        checks.push({
          name,
          verdict: "doubtful",
          found: `${copyOf(device)} has a copy of its identity, and was turned down`,
          advice: "on that machine: `pinion device enroll --anew --join-code …` makes it a device of its own",
        });
      }
      if (device.configProblem) {
        checks.push({
          name,
          verdict: "doubtful",
          found: `its configuration is wrong, and the one before it is in force: ${device.configProblem.replaceAll("\n", "; ")}`,
          advice: "correct its device.toml; it is read again by itself",
        });
      }
      return checks;
    });
  } catch {
    // The check of the token reports the problem.
    return [];
  } finally {
    clients.close();
  }
}

type Answer = {
  ok: boolean;
  status: number;
  text: string;
  tookMs: number;
  date: Date | undefined;
  receivedAtMs: number;
};

/** Maximum characters of an answer: Pinion's own answers are shorter. */
const textMax = 2_000;

function get(url: string, proxy: ProxySetting | undefined): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(askTimeoutMs);
    outgoingRequest(new URL(url), { signal, ...(proxy ? { proxy } : {}) }, resolve)
      .on("error", (error) => reject(signal.aborted ? signal.reason : error))
      .end();
  });
}

async function textOf(answer: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of answer.setEncoding("utf8")) {
    text += chunk;
    if (text.length > textMax) break;
  }
  return text.slice(0, textMax);
}

async function ask(url: string, proxy: ProxySetting | undefined): Promise<Answer | Error> {
  const startedAt = performance.now();
  try {
    const answer = await get(url, proxy);
    const tookMs = performance.now() - startedAt;
    const date = new Date(answer.headers.date ?? "");
    const status = answer.statusCode ?? 0;
    return {
      ok: status >= 200 && status < 300,
      status,
      text: await textOf(answer),
      tookMs,
      date: Number.isNaN(date.getTime()) ? undefined : date,
      receivedAtMs: Date.now(),
    };
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

function unreachable(url: string, error: Error): Check {
  const blamed = proxyErrorOf(error);
  if (blamed) return { name: "server", verdict: "bad", found: blamed.message, advice: blamed.advice };
  const code = systemCode(error);
  const why =
    code ?? (error.name === "TimeoutError" ? `no answer in ${formatLength(askTimeoutMs)}` : error.message);
  const problem = code && certificateProblem(code);
  if (problem)
    return { name: "server", verdict: "bad", found: `${url}: ${problem.found}`, advice: problem.advice };
  return {
    name: "server",
    verdict: "bad",
    found: `no Pinion at ${url} (${why})`,
    advice: "start one with `pinion up` or `pinion serve`, or say where it is with --url or PINION_URL",
  };
}

/** Checks readiness, and the bus as reported by `/readyz`. */
async function checkReadiness(url: string, proxy: ProxySetting | undefined): Promise<Check[]> {
  const ready = await ask(`${url}/readyz`, proxy);
  const found = ready instanceof Error ? undefined : readinessOf(ready.text);
  if (ready instanceof Error || !found) {
    return [
      {
        name: "ready",
        verdict: "bad",
        found: ready instanceof Error ? ready.message : `/readyz answers with HTTP ${ready.status}`,
        advice: "is it a Pinion, and as new as this command?",
      },
    ];
  }
  const failing = Object.entries(found.checks).filter(([, check]) => !check.ok);
  const reasons = failing.map(([name, check]) => `${name}: ${check.message}`).join("; ");
  const { bus } = found.checks;
  return [
    found.ready
      ? { name: "ready", verdict: "good", found: "takes work" }
      : {
          name: "ready",
          verdict: "bad",
          found: `takes no work (${reasons})`,
          advice: "its log says why; `doctor --database-url …` looks at the database",
        },
    bus.ok
      ? { name: "bus", verdict: "good", found: "the server hears of other replicas' commits" }
      : {
          name: "bus",
          verdict: "doubtful",
          found: bus.message,
          advice:
            "runs that another replica writes come some seconds late; DATABASE_DIRECT_URL must lead around any pooler",
        },
  ];
}

function readinessOf(text: string): Readiness | undefined {
  try {
    const value = JSON.parse(text) as Readiness;
    return typeof value.ready === "boolean" && value.checks?.bus ? value : undefined;
  } catch {
    return undefined;
  }
}

function checkSkew(health: Answer): Check {
  if (!health.date) return { name: "clock", verdict: "absent", found: "the server does not tell its time" };
  // HTTP dates are cut to whole seconds: on average half a second late.
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

/** Minimum remaining time of a token without a remark, in ms. */
const tokenLeftMsMin = 7 * dayMs;

function tokenCheck(token: {
  kind: string | undefined;
  from: string;
  scopes: readonly string[];
  expiresAt: Timestamp | undefined;
}): Check {
  const leftMs = token.expiresAt && timestampDate(token.expiresAt).getTime() - Date.now();
  const end = leftMs === undefined ? "does not expire" : `expires in ${formatLength(leftMs)}`;
  const found = `${token.kind} token from ${token.from}, scopes ${token.scopes.join(", ")}, ${end}`;
  if (leftMs !== undefined && leftMs < tokenLeftMsMin) {
    return {
      name: "token",
      verdict: "doubtful",
      found,
      advice: "`pinion tokens rotate` makes its successor while it is still good",
    };
  }
  return { name: "token", verdict: "good", found };
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
  const clients = createClients({ url, token, ...proxyOption(options) });
  try {
    if (kind === "dev") {
      await clients.device.listMyWatchers({}, { timeoutMs: askTimeoutMs });
      return { name: "token", verdict: "good", found: `dev token from ${from}, taken by the server` };
    }
    const { caller } = await clients.tokens.listTokens({ pageSize: 1 }, { timeoutMs: askTimeoutMs });
    return tokenCheck({ kind, from, scopes: caller?.scopes ?? [], expiresAt: caller?.expiresAt });
  } catch (error) {
    if (isPermissionDenied(error)) {
      return {
        name: "token",
        verdict: "doubtful",
        found: `${kind} token from ${from}, good, but without the scope "read"`,
        advice: "enough for a fleet worker; the other commands need a token with `--scope read` or more",
      };
    }
    const { message, advice } = explain(error, url);
    return {
      name: "token",
      verdict: "bad",
      found: message,
      advice: advice ?? "try again once the rest is well",
    };
  } finally {
    clients.close();
  }
}

/** Where the copy of a device is: on the machine itself if its name is the machine's own. */
function copyOf({ duplicate, hostName }: { duplicate?: { hostName: string }; hostName: string }): string {
  const there = duplicate?.hostName ?? "";
  if (there === "") return "another machine";
  return there === hostName ? `a second daemon on ${there}, or on a clone of it,` : there;
}
